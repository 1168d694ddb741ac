# Table 2: RetinaNet with PVT-Tiny, 1x schedule (12 epochs). AP 36.7 in the paper.
_base_ = 'pvt_small_1x.py'

model = dict(
    backbone=dict(
        arch='tiny', init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_tiny.pth')
    )
)
