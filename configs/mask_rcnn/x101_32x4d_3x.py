# Table 3: Mask R-CNN with ResNeXt101-32x4d, 3x schedule (36 epochs), multi-scale training.
# Box AP 44.0, mask AP 39.2 in the paper.
_base_ = 'r50_3x.py'

model = dict(
    backbone=dict(
        type='ResNeXt', depth=101, groups=32, base_width=4, init_cfg=dict(checkpoint='open-mmlab://resnext101_32x4d')
    )
)
