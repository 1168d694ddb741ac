# Table 3: Mask R-CNN with ResNeXt101-32x4d, 1x schedule (12 epochs). Box AP 41.9, mask AP 37.5 in the paper.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', '../_base_/backbones/x101_32x4d.py']

model = dict(backbone=_base_.backbone)
