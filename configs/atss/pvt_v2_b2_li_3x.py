# PVTv2: ATSS with PVTv2-B2-Li, 3x schedule (36 epochs), multi-scale training. AP 48.9 as published.
_base_ = ['../_base_/recipes/atss_pvt_v2_3x.py', '../_base_/backbones/pvt_v2_b2_li.py']

model = dict(backbone=_base_.backbone)
