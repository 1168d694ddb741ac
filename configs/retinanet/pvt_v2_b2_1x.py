# PVTv2: RetinaNet with PVTv2-B2, 1x schedule (12 epochs). AP 44.6 in its paper.
_base_ = ['../_base_/recipes/retinanet_pvt_1x.py', '../_base_/backbones/pvt_v2_b2.py']

model = dict(backbone=_base_.backbone)
