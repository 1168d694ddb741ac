# Table 3: Mask R-CNN with PVT-Tiny, 3x schedule (36 epochs), multi-scale training.
# Box AP 39.8, mask AP 37.4 in the paper.
_base_ = ['../_base_/recipes/mask_rcnn_pvt_3x.py', '../_base_/backbones/pvt_tiny.py']

model = dict(backbone=_base_.backbone)
