# Semantic FPN with PVT-Small as the published code trains it: 40k iterations of 32 images at twice the paper's
# learning rate. mIoU 41.9 in its model zoo.
_base_ = ['../_base_/recipes/semantic_fpn_pvt_40k.py', '../_base_/backbones/pvt_small.py']

model = dict(backbone=_base_.backbone)
