# PVTv2: Cascade Mask R-CNN with PVTv2-B2, 3x schedule (36 epochs).
# Box AP 51.1, mask AP 44.4 as published.
_base_ = ['../_base_/recipes/cascade_mask_rcnn_pvt_v2_3x.py', '../_base_/backbones/pvt_v2_b2.py']

model = dict(backbone=_base_.backbone)
