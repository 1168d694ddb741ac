# PVTv2: GFL with PVTv2-B2-Li, 3x schedule (36 epochs), multi-scale training. AP 49.2 as published.
_base_ = ['../_base_/recipes/gfl_pvt_v2_3x.py', '../_base_/backbones/pvt_v2_b2_li.py']

model = dict(backbone=_base_.backbone)
