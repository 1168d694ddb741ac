# Table 2: RetinaNet with PVT-Medium, 1x schedule (12 epochs). AP 41.9 in the paper.
_base_ = 'pvt_small_1x.py'

model = dict(
    backbone=dict(
        arch='medium',
        drop_path_rate=0.0,  # as published, for detection
        init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_medium.pth'),
    )
)
