# Semantic FPN with PVT-Medium as the published code trains it: 40k iterations of 32 images at twice the paper's
# learning rate. mIoU 43.5 in its model zoo.
_base_ = ['../_base_/recipes/semantic_fpn_pvt_40k.py', '../_base_/backbones/pvt_medium.py']

model = dict(backbone=_base_.backbone)
