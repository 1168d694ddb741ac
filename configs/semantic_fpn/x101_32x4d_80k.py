# Table 4: Semantic FPN with ResNeXt101-32x4d, 80k iterations. mIoU 39.7 in the paper.
_base_ = ['../_base_/recipes/semantic_fpn_80k.py', '../_base_/backbones/x101_32x4d.py']

model = dict(pretrained=None, backbone=_base_.backbone)
