# Table 1: PVT-Tiny on ImageNet-1K, 300 epochs. Top-1 error 24.9 % in the paper.
_base_ = '../_base_/recipes/imagenet_pvt_300e.py'

model = dict(backbone=dict(arch='tiny'))
