# Table 2: RetinaNet with ResNet18, 1x schedule (12 epochs). AP 31.8 in the paper.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../_base_/backbones/r18.py']

model = dict(backbone=_base_.backbone, neck=dict(in_channels=[64, 128, 256, 512]))
