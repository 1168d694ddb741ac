# PVTv2: Semantic FPN with PVTv2-B3, 40k iterations of 32 images. mIoU 47.3 in its paper.
_base_ = ['../_base_/recipes/semantic_fpn_pvt_40k.py', '../_base_/backbones/pvt_v2_b3.py']

model = dict(backbone=_base_.backbone)
