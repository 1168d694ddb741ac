# Table 3: Mask R-CNN with PVT-Medium, 1x schedule (12 epochs). Box AP 42.0, mask AP 39.0 in the paper.
_base_ = ['../_base_/recipes/mask_rcnn_pvt_1x.py', '../_base_/backbones/pvt_medium.py']

model = dict(backbone=dict(**_base_.backbone, drop_path_rate=0.0))  # as published, for detection
