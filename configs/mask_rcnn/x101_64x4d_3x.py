# Table 3: Mask R-CNN with ResNeXt101-64x4d, 3x schedule (36 epochs), multi-scale training.
# Box AP 44.4, mask AP 39.7 in the paper.
_base_ = 'r50_3x.py'

model = dict(
    backbone=dict(
        type='ResNeXt', depth=101, groups=64, base_width=4, init_cfg=dict(checkpoint='open-mmlab://resnext101_64x4d')
    )
)
