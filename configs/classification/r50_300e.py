# Table 1: ResNet50 on ImageNet-1K by the PVTs' recipe, 300 epochs. Top-1 error 21.5 % in the paper.
_base_ = '../_base_/recipes/imagenet_resnet_300e.py'

model = dict(backbone=dict(depth=50))
