# Table 1: PVT-Large on ImageNet-1K, 300 epochs. Top-1 error 18.3 % in the paper.
_base_ = '../_base_/recipes/imagenet_pvt_300e.py'

model = dict(backbone=dict(arch='large', drop_path_rate=0.3))
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
