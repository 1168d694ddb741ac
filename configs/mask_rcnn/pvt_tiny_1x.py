# Table 3: Mask R-CNN with PVT-Tiny, 1x schedule (12 epochs). Box AP 36.7, mask AP 35.1 in the paper.
_base_ = 'pvt_small_1x.py'

model = dict(
    backbone=dict(
        arch='tiny', init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_tiny.pth')
    )
)
