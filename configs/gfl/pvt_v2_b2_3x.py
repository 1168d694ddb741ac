# PVTv2: GFL with PVTv2-B2, 3x schedule (36 epochs), multi-scale training. AP 50.2 as published.
_base_ = ['../_base_/recipes/gfl_pvt_v2_3x.py', '../_base_/backbones/pvt_v2_b2.py']

model = dict(backbone=_base_.backbone)
