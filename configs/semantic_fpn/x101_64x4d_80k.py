# Table 4: Semantic FPN with ResNeXt101-64x4d, 80k iterations. mIoU 40.2 in the paper.
_base_ = 'r50_80k.py'

model = dict(
    pretrained='open-mmlab://resnext101_64x4d', backbone=dict(type='ResNeXt', depth=101, groups=64, base_width=4)
)
