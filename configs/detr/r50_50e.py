# Table 5: DETR with ResNet50, 50 epochs, the learning rate divided by 10 after 33. AP 32.3 in the paper.
_base_ = ['../_base_/recipes/detr_50e.py', '../_base_/backbones/r50.py']

model = dict(backbone=_base_.backbone)
