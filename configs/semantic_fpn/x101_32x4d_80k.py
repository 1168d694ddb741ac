# Table 4: Semantic FPN with ResNeXt101-32x4d, 80k iterations. mIoU 39.7 in the paper.
_base_ = 'r50_80k.py'

model = dict(
    pretrained='open-mmlab://resnext101_32x4d', backbone=dict(type='ResNeXt', depth=101, groups=32, base_width=4)
)
