# Table 3: Mask R-CNN with PVT-Tiny, 1x schedule (12 epochs). Box AP 36.7, mask AP 35.1 in the paper.
_base_ = ['../_base_/recipes/mask_rcnn_pvt_1x.py', '../_base_/backbones/pvt_tiny.py']

model = dict(backbone=_base_.backbone)
