# PVTv2: Mask R-CNN with PVTv2-B0, 1x schedule (12 epochs). Box AP 38.2, mask AP 36.2 in its paper.
_base_ = ['../_base_/recipes/mask_rcnn_pvt_1x.py', '../_base_/backbones/pvt_v2_b0.py']

model = dict(
    backbone=_base_.backbone,
    neck=dict(in_channels=[32, 64, 160, 256]),
)

optim_wrapper = dict(optimizer=dict(lr=2e-4))
