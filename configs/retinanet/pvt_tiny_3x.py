# Table 2: RetinaNet with PVT-Tiny, 3x schedule (36 epochs), multi-scale training. AP 39.4 in the paper.
_base_ = ['../_base_/recipes/retinanet_pvt_3x.py', '../_base_/backbones/pvt_tiny.py']

model = dict(backbone=_base_.backbone)
