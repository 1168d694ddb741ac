# Table 3: Mask R-CNN with PVT-Large, 1x schedule (12 epochs). Box AP 42.9, mask AP 39.5 in the paper.
_base_ = ['../_base_/recipes/mask_rcnn_pvt_1x.py', '../_base_/backbones/pvt_large.py']

model = dict(backbone=dict(**_base_.backbone, drop_path_rate=0.0))  # as published, for detection
