# Table 2: RetinaNet with ResNet101, 1x schedule (12 epochs). AP 38.5 in the paper.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../_base_/backbones/r101.py']

model = dict(backbone=_base_.backbone)
