# PVTv2: PVTv2-B2 on ImageNet-1K, 300 epochs. Top-1 error 18.0 % in its paper.
_base_ = '../_base_/recipes/imagenet_pvt_300e.py'

model = dict(backbone=dict(type='PVTv2', arch='b2'))
