# Table 2: RetinaNet with PVT-Tiny, 3x schedule (36 epochs), multi-scale training. AP 39.4 in the paper.
_base_ = 'pvt_small_3x.py'

model = dict(
    backbone=dict(
        arch='tiny', init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_tiny.pth')
    )
)
