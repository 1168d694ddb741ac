# Table 3: Mask R-CNN with ResNeXt101-32x4d, 3x schedule (36 epochs), multi-scale training.
# Box AP 44.0, mask AP 39.2 in the paper.
_base_ = ['../_base_/recipes/mask_rcnn_resnet_3x.py', '../_base_/backbones/x101_32x4d.py']

model = dict(backbone=_base_.backbone)
