# PVTv2: Semantic FPN with PVTv2-B4, 40k iterations of 32 images. mIoU 47.9 in its paper.
_base_ = ['../_base_/recipes/semantic_fpn_pvt_40k.py', '../_base_/backbones/pvt_v2_b4.py']

model = dict(backbone=_base_.backbone)
