# PVTv2: Mask R-CNN with PVTv2-B1, 1x schedule (12 epochs). Box AP 41.8, mask AP 38.8 in its paper.
_base_ = ['../_base_/recipes/mask_rcnn_pvt_1x.py', '../_base_/backbones/pvt_v2_b1.py']

model = dict(backbone=_base_.backbone)

optim_wrapper = dict(optimizer=dict(lr=2e-4))
