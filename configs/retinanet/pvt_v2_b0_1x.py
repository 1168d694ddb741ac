# PVTv2: RetinaNet with PVTv2-B0, 1x schedule (12 epochs). AP 37.2 in its paper.
_base_ = ['../_base_/recipes/retinanet_pvt_1x.py', '../_base_/backbones/pvt_v2_b0.py']

model = dict(
    backbone=_base_.backbone,
    neck=dict(in_channels=[32, 64, 160, 256]),
)
