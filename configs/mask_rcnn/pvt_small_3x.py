# Table 3: Mask R-CNN with PVT-Small, 3x schedule (36 epochs), multi-scale training.
# Box AP 43.0, mask AP 39.9 in the paper.
_base_ = ['../_base_/recipes/mask_rcnn_pvt_3x.py', '../_base_/backbones/pvt_small.py']

model = dict(backbone=_base_.backbone)
