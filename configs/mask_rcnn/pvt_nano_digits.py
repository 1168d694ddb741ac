# A Mask R-CNN with a small PVT that learns the digit scenes in minutes on 2 cores.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/models/nano.py',
    '../_base_/datasets/digits_instance.py',
    '../_base_/schedules/digits.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['pvt_mm'])

model = dict(
    data_preprocessor=dict(pad_size_divisor=1),
    backbone=dict(_delete_=True, **_base_.pvt_nano),
    # the digits are 38 to 64 px, most of them upright: strides 8 to 32 and two ratios do
    neck=dict(
        in_channels=[32, 64, 128, 256],
        out_channels=64,
        start_level=1,
        num_outs=3,
        norm_cfg=dict(type='GN', num_groups=16),
    ),
    rpn_head=dict(
        in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4], ratios=[1.0, 2.0], strides=[8, 16, 32])
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, featmap_strides=[8, 16, 32], finest_scale=28),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=10, reg_class_agnostic=True),
        mask_roi_extractor=dict(out_channels=64, featmap_strides=[8, 16, 32], finest_scale=28),
        mask_head=dict(num_convs=2, in_channels=64, conv_out_channels=32, num_classes=10),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=300, max_per_img=100), rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)),
)

default_hooks = dict(visualization=dict(score_thr=0.5))
