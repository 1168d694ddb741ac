# Table 4: Semantic FPN with PVT-Tiny, 80k iterations. mIoU 35.7 in the paper.
# The published code runs 40k iterations of 32 images at 2e-4 instead: pvt_tiny_40k.py.
_base_ = ['../_base_/recipes/semantic_fpn_pvt_80k.py', '../_base_/backbones/pvt_tiny.py']

model = dict(backbone=_base_.backbone)
