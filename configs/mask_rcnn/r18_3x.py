# Table 3: Mask R-CNN with ResNet18, 3x schedule (36 epochs), multi-scale training.
# Box AP 36.9, mask AP 33.6 in the paper.
_base_ = ['../_base_/recipes/mask_rcnn_resnet_3x.py', '../_base_/backbones/r18.py']

model = dict(backbone=_base_.backbone, neck=dict(in_channels=[64, 128, 256, 512]))
