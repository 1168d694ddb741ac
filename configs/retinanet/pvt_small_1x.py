# Table 2: RetinaNet with PVT-Small, 1x schedule (12 epochs). AP 40.4 in the paper.
_base_ = ['../_base_/recipes/retinanet_pvt_1x.py', '../_base_/backbones/pvt_small.py']

model = dict(backbone=_base_.backbone)
