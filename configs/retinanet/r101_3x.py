# Table 2: RetinaNet with ResNet101, 3x schedule (36 epochs), multi-scale training. AP 40.9 in the paper.
_base_ = ['../_base_/recipes/retinanet_resnet_3x.py', '../_base_/backbones/r101.py']

model = dict(backbone=_base_.backbone)
