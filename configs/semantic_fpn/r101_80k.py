# Table 4: Semantic FPN with ResNet101, 80k iterations. mIoU 38.8 in the paper.
_base_ = '../_base_/recipes/semantic_fpn_80k.py'

model = dict(pretrained='open-mmlab://resnet101_v1c', backbone=dict(depth=101))
