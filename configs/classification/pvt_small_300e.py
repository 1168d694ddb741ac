# Table 1: PVT-Small on ImageNet-1K, 300 epochs. Top-1 error 20.2 % in the paper.
_base_ = '../_base_/recipes/imagenet_pvt_300e.py'

model = dict(backbone=dict(arch='small'))
