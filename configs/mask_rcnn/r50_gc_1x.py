# Beside a non-local block (arXiv Table 10): Mask R-CNN with ResNet50 and GC blocks (ratio 1/4), 1x schedule.
# Mask AP 36.2 in the paper.
_base_ = 'r50_1x.py'

model = dict(
    backbone=dict(
        plugins=[
            dict(
                cfg=dict(type='ContextBlock', ratio=1 / 4),
                stages=(False, True, True, True),
                position='after_conv3',
            )
        ]
    )
)
