# Table 2: RetinaNet with PVT-Medium, 3x schedule (36 epochs), multi-scale training. AP 43.2 in the paper.
_base_ = ['../_base_/recipes/retinanet_pvt_3x.py', '../_base_/backbones/pvt_medium.py']

model = dict(backbone=dict(**_base_.backbone, drop_path_rate=0.0))  # as published, for detection
