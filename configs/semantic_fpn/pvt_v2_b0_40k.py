# PVTv2: Semantic FPN with PVTv2-B0, 40k iterations of 32 images. mIoU 37.2 in its paper.
_base_ = ['../_base_/recipes/semantic_fpn_pvt_40k.py', '../_base_/backbones/pvt_v2_b0.py']

model = dict(
    backbone=_base_.backbone,
    neck=dict(in_channels=[32, 64, 160, 256]),
)
