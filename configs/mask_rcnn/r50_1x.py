# Table 3: Mask R-CNN with ResNet50, 1x schedule (12 epochs), mmdet's SGD recipe.
# Box AP 38.0, mask AP 34.4 in the paper.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', '../_base_/backbones/r50.py']

model = dict(backbone=_base_.backbone)
