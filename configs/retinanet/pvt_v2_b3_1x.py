# PVTv2: RetinaNet with PVTv2-B3, 1x schedule (12 epochs). AP 45.9 in its paper.
_base_ = ['../_base_/recipes/retinanet_pvt_1x.py', '../_base_/backbones/pvt_v2_b3.py']

model = dict(backbone=_base_.backbone)
