# Table 2: RetinaNet with ResNeXt101-32x4d, 3x schedule (36 epochs), multi-scale training. AP 41.4 in the paper.
_base_ = ['../_base_/recipes/retinanet_resnet_3x.py', '../_base_/backbones/x101_32x4d.py']

model = dict(backbone=_base_.backbone)
