# Table 2: RetinaNet with PVT-Medium, 1x schedule (12 epochs). AP 41.9 in the paper.
_base_ = ['../_base_/recipes/retinanet_pvt_1x.py', '../_base_/backbones/pvt_medium.py']

model = dict(backbone=dict(**_base_.backbone, drop_path_rate=0.0))  # as published, for detection
