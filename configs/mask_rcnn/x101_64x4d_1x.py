# Table 3: Mask R-CNN with ResNeXt101-64x4d, 1x schedule (12 epochs). Box AP 42.8, mask AP 38.4 in the paper.
_base_ = 'r50_1x.py'

model = dict(
    backbone=dict(
        type='ResNeXt', depth=101, groups=64, base_width=4, init_cfg=dict(checkpoint='open-mmlab://resnext101_64x4d')
    )
)
