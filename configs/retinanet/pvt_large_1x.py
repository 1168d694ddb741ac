# Table 2: RetinaNet with PVT-Large, 1x schedule (12 epochs). AP 42.6 in the paper.
# The published run was in mixed precision (--amp).
_base_ = ['../_base_/recipes/retinanet_pvt_1x.py', '../_base_/backbones/pvt_large.py']

model = dict(backbone=dict(**_base_.backbone, drop_path_rate=0.0))  # as published, for detection
