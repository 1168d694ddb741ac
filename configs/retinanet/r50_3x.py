# Table 2: RetinaNet with ResNet50, 3x schedule (36 epochs), multi-scale training, mmdet's SGD recipe.
# AP 39.0 in the paper.
_base_ = ['../_base_/recipes/retinanet_resnet_3x.py', '../_base_/backbones/r50.py']

model = dict(backbone=_base_.backbone)
