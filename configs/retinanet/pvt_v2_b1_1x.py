# PVTv2: RetinaNet with PVTv2-B1, 1x schedule (12 epochs). AP 41.2 in its paper.
_base_ = ['../_base_/recipes/retinanet_pvt_1x.py', '../_base_/backbones/pvt_v2_b1.py']

model = dict(backbone=_base_.backbone)
