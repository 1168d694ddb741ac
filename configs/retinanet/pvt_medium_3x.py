# Table 2: RetinaNet with PVT-Medium, 3x schedule (36 epochs), multi-scale training. AP 43.2 in the paper.
_base_ = 'pvt_small_3x.py'

model = dict(
    backbone=dict(
        arch='medium',
        drop_path_rate=0.0,  # as published, for detection
        init_cfg=dict(checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_medium.pth'),
    )
)
