# Table 3: Mask R-CNN with PVT-Large, 3x schedule (36 epochs), multi-scale training.
# Box AP 44.5, mask AP 40.7 in the paper.
_base_ = ['../_base_/recipes/mask_rcnn_pvt_3x.py', '../_base_/backbones/pvt_large.py']

model = dict(backbone=dict(**_base_.backbone, drop_path_rate=0.0))  # as published, for detection
