# Table 3: Mask R-CNN with ResNet101, 1x schedule (12 epochs). Box AP 40.4, mask AP 36.4 in the paper.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', '../_base_/backbones/r101.py']

model = dict(backbone=_base_.backbone)
