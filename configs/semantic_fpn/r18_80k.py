# Table 4: Semantic FPN with ResNet18, 80k iterations. mIoU 32.9 in the paper.
_base_ = '../_base_/recipes/semantic_fpn_80k.py'

model = dict(
    pretrained='open-mmlab://resnet18_v1c', backbone=dict(depth=18), neck=dict(in_channels=[64, 128, 256, 512])
)
