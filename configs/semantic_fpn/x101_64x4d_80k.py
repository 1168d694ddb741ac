# Table 4: Semantic FPN with ResNeXt101-64x4d, 80k iterations. mIoU 40.2 in the paper.
_base_ = ['../_base_/recipes/semantic_fpn_80k.py', '../_base_/backbones/x101_64x4d.py']

model = dict(pretrained=None, backbone=_base_.backbone)
