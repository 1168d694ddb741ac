# Table 1: ResNet18 on ImageNet-1K by the PVTs' recipe, 300 epochs. The paper's 30.2 % is of the original recipe.
_base_ = '../_base_/recipes/imagenet_resnet_300e.py'

model = dict(backbone=dict(depth=18), head=dict(in_channels=512))
