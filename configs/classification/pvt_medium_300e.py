# Table 1: PVT-Medium on ImageNet-1K, 300 epochs. Top-1 error 18.8 % in the paper.
_base_ = '../_base_/recipes/imagenet_pvt_300e.py'

model = dict(backbone=dict(arch='medium', drop_path_rate=0.3))
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
