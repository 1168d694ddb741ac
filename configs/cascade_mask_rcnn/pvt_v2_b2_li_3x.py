# PVTv2: Cascade Mask R-CNN with PVTv2-B2-Li, 3x schedule (36 epochs).
# Box AP 50.9, mask AP 44.0 as published.
_base_ = ['../_base_/recipes/cascade_mask_rcnn_pvt_v2_3x.py', '../_base_/backbones/pvt_v2_b2_li.py']

model = dict(backbone=_base_.backbone)
