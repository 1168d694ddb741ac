# Table 1: ResNeXt101-32x4d on ImageNet-1K by the PVTs' recipe, 300 epochs. Top-1 error 19.4 % in the paper.
_base_ = '../_base_/recipes/imagenet_resnet_300e.py'

model = dict(backbone=dict(type='ResNeXt', depth=101, groups=32, width_per_group=4))
