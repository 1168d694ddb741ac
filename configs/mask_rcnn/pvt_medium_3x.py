# Table 3: Mask R-CNN with PVT-Medium, 3x schedule (36 epochs), multi-scale training.
# Box AP 44.2, mask AP 40.5 in the paper.
_base_ = ['../_base_/recipes/mask_rcnn_pvt_3x.py', '../_base_/backbones/pvt_medium.py']

model = dict(backbone=dict(**_base_.backbone, drop_path_rate=0.0))  # as published, for detection
