# The demo: a RetinaNet with a small PVT that learns the digit scenes in minutes on 2 cores.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/models/nano.py',
    '../_base_/datasets/digits_detection.py',
    '../_base_/schedules/digits.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['pvt_mm'])

model = dict(
    data_preprocessor=dict(pad_size_divisor=1),
    backbone=dict(_delete_=True, **_base_.pvt_nano),
    # the digits are 38 to 64 px, most of them upright: strides 8 to 32 and two ratios do
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64, num_outs=3, norm_cfg=dict(type='GN', num_groups=16)),
    bbox_head=dict(
        num_classes=10,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=16),
        anchor_generator=dict(octave_base_scale=4, ratios=[1.0, 2.0], strides=[8, 16, 32]),
        reg_decoded_bbox=True,
        loss_bbox=dict(_delete_=True, type='GIoULoss', loss_weight=2.0),
    ),
)

default_hooks = dict(visualization=dict(score_thr=0.5))
