# Table 1: ResNeXt50-32x4d on ImageNet-1K by the PVTs' recipe, 300 epochs. Top-1 error 20.5 % in the paper.
_base_ = '../_base_/recipes/imagenet_resnet_300e.py'

model = dict(backbone=dict(type='ResNeXt', depth=50, groups=32, width_per_group=4))
