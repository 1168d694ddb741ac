# Table 3: Mask R-CNN with PVT-Small, 1x schedule (12 epochs). Box AP 40.4, mask AP 37.8 in the paper.
_base_ = ['../_base_/recipes/mask_rcnn_pvt_1x.py', '../_base_/backbones/pvt_small.py']

model = dict(backbone=_base_.backbone)
