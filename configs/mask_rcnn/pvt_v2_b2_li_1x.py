# PVTv2: Mask R-CNN with PVTv2-B2-Li, 1x schedule (12 epochs). Box AP 44.1, mask AP 40.5 in its paper.
_base_ = ['../_base_/recipes/mask_rcnn_pvt_1x.py', '../_base_/backbones/pvt_v2_b2_li.py']

model = dict(backbone=_base_.backbone)

optim_wrapper = dict(optimizer=dict(lr=2e-4))
