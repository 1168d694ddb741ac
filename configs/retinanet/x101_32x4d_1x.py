# Table 2: RetinaNet with ResNeXt101-32x4d, 1x schedule (12 epochs). AP 39.9 in the paper.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../_base_/backbones/x101_32x4d.py']

model = dict(backbone=_base_.backbone)
