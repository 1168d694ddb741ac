# Table 2: RetinaNet with PVT-Large, 1x schedule (12 epochs). AP 42.6 in the paper.
_base_ = 'pvt_small_1x.py'

model = dict(
    backbone=dict(
        arch='large',
        drop_path_rate=0.0,  # as published, for detection
        init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_large.pth'),
    )
)
