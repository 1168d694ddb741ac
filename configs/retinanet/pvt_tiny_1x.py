# Table 2: RetinaNet with PVT-Tiny, 1x schedule (12 epochs). AP 36.7 in the paper.
_base_ = ['../_base_/recipes/retinanet_pvt_1x.py', '../_base_/backbones/pvt_tiny.py']

model = dict(backbone=_base_.backbone)
