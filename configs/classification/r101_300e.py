# Table 1: ResNet101 on ImageNet-1K by the PVTs' recipe, 300 epochs. Top-1 error 20.2 % in the paper.
_base_ = '../_base_/recipes/imagenet_resnet_300e.py'

model = dict(backbone=dict(depth=101))
