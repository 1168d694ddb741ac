# Table 2: RetinaNet with ResNeXt101-64x4d, 1x schedule (12 epochs). AP 41.0 in the paper.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../_base_/backbones/x101_64x4d.py']

model = dict(backbone=_base_.backbone)
