# Table 3: Mask R-CNN with ResNet101, 3x schedule (36 epochs), multi-scale training.
# Box AP 42.8, mask AP 38.5 in the paper.
_base_ = ['../_base_/recipes/mask_rcnn_resnet_3x.py', '../_base_/backbones/r101.py']

model = dict(backbone=_base_.backbone)
