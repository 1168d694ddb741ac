# Trans2Seg with a small PVT that learns the digit scenes in minutes on 2 cores.
_base_ = [
    '../_base_/models/nano.py',
    '../_base_/datasets/digits_segmentation.py',
    '../_base_/schedules/digits.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['pvt_mm'])

model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(128, 128),
    ),
    backbone=_base_.pvt_nano,
    decode_head=dict(
        type='Trans2SegHead',
        in_channels=(32, 256),
        channels=32,
        num_classes=11,
        feat_size=(4, 4),
        embed_dims=64,
        num_layers=2,
        num_heads=4,
        resize=True,
    ),
    test_cfg=dict(mode='whole'),
)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
log_processor = dict(by_epoch=True)
