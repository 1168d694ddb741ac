# Table 2: RetinaNet with ResNet18, 3x schedule (36 epochs), multi-scale training. AP 35.4 in the paper.
_base_ = ['../_base_/recipes/retinanet_resnet_3x.py', '../_base_/backbones/r18.py']

model = dict(backbone=_base_.backbone, neck=dict(in_channels=[64, 128, 256, 512]))
