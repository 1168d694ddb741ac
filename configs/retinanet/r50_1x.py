# Table 2: RetinaNet with ResNet50, 1x schedule (12 epochs), mmdet's SGD recipe. AP 36.3 in the paper.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../_base_/backbones/r50.py']

model = dict(backbone=_base_.backbone)
