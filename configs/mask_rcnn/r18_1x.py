# Table 3: Mask R-CNN with ResNet18, 1x schedule (12 epochs). Box AP 34.0, mask AP 31.2 in the paper.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', '../_base_/backbones/r18.py']

model = dict(backbone=_base_.backbone, neck=dict(in_channels=[64, 128, 256, 512]))
