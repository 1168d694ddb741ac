# Table 3: Mask R-CNN with ResNeXt101-64x4d, 1x schedule (12 epochs). Box AP 42.8, mask AP 38.4 in the paper.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', '../_base_/backbones/x101_64x4d.py']

model = dict(backbone=_base_.backbone)
