# PVTv2: Semantic FPN with PVTv2-B2-Li, 40k iterations of 32 images. mIoU 45.1 in its paper.
_base_ = ['../_base_/recipes/semantic_fpn_pvt_40k.py', '../_base_/backbones/pvt_v2_b2_li.py']

model = dict(backbone=_base_.backbone)
