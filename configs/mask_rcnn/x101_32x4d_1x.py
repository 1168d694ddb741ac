# Table 3: Mask R-CNN with ResNeXt101-32x4d, 1x schedule (12 epochs). Box AP 41.9, mask AP 37.5 in the paper.
_base_ = 'r50_1x.py'

model = dict(
    backbone=dict(
        type='ResNeXt', depth=101, groups=32, base_width=4, init_cfg=dict(checkpoint='open-mmlab://resnext101_32x4d')
    )
)
