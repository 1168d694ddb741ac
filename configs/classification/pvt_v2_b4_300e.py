# PVTv2: PVTv2-B4 on ImageNet-1K, 300 epochs. Top-1 error 16.4 % in its paper.
_base_ = '../_base_/recipes/imagenet_pvt_300e.py'

model = dict(backbone=dict(type='PVTv2', arch='b4', drop_path_rate=0.3))
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
