# The demo: a RetinaNet with a small PVT that learns the digit scenes in minutes on 2 cores.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/digits_detection.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['pvt_mm'])

model = dict(
    data_preprocessor=dict(pad_size_divisor=1),
    backbone=dict(
        _delete_=True,
        type='PVT',
        arch=dict(
            embed_dims=(32, 64, 128, 256),
            num_layers=(1, 1, 1, 1),
            num_heads=(1, 2, 4, 8),
            mlp_ratios=(4, 4, 4, 4),
            sr_ratios=(8, 4, 2, 1),
            patch_sizes=(4, 2, 2, 2)),
        img_size=128),
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
        loss_bbox=dict(_delete_=True, type='GIoULoss', loss_weight=2.0)))

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=7, val_interval=2)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=7, T_max=7, eta_min=1e-5, convert_to_iter_based=True),
]

# 8 images; --auto-scale-lr adapts the learning rate to another batch
auto_scale_lr = dict(enable=False, base_batch_size=8)

default_hooks = dict(visualization=dict(score_thr=0.5))
randomness = dict(seed=0)
