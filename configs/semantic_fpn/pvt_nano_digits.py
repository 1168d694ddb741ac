# A Semantic FPN with a small PVT that learns the digit scenes in minutes on 2 cores.
_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    '../_base_/models/nano.py',
    '../_base_/datasets/digits_segmentation.py',
    '../_base_/schedules/digits_segmentation.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['pvt_mm'])

norm_cfg = dict(type='GN', num_groups=16)
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    pretrained=None,
    backbone=dict(_delete_=True, **_base_.pvt_nano),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64, norm_cfg=norm_cfg),
    decode_head=dict(
        in_channels=[64, 64, 64, 64],
        channels=64,
        dropout_ratio=0.0,
        num_classes=11,
        norm_cfg=dict(_delete_=True, **norm_cfg),
    ),
)

# which digit a pixel belongs to is learned late: one epoch more than the detectors need
optim_wrapper = dict(optimizer=dict(lr=4e-3))
train_cfg = dict(max_epochs=5)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=5, T_max=5, eta_min=1e-5, convert_to_iter_based=True),
]

log_processor = dict(by_epoch=True)
