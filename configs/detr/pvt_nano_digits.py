# A DETR with a small PVT. From scratch DETR learns slowly: here it overfits 16 digit scenes, and is tested on these.
_base_ = [
    '../_base_/models/nano.py',
    '../_base_/datasets/digits_overfit.py',
    '../_base_/schedules/digits.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['pvt_mm'])

attention = dict(embed_dims=128, num_heads=4, dropout=0.0, batch_first=True)
ffn = dict(embed_dims=128, feedforward_channels=256, num_fcs=2, ffn_drop=0.0, act_cfg=dict(type='ReLU', inplace=True))
model = dict(
    type='DETR',
    num_queries=20,
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(**_base_.pvt_nano, out_indices=(2,)),
    neck=dict(type='ChannelMapper', in_channels=[128], kernel_size=1, out_channels=128, act_cfg=None, num_outs=1),
    encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
    decoder=dict(
        num_layers=3,
        layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn),
        return_intermediate=True,
    ),
    positional_encoding=dict(num_feats=64, normalize=True),
    bbox_head=dict(
        type='DETRHead',
        num_classes=10,
        embed_dims=128,
        loss_cls=dict(type='CrossEntropyLoss', bg_cls_weight=0.1, class_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type='HungarianAssigner',
            match_costs=[
                dict(type='ClassificationCost', weight=1.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ],
        )
    ),
    test_cfg=dict(max_per_img=20),
)

optim_wrapper = dict(optimizer=dict(lr=5e-4, weight_decay=1e-4), clip_grad=dict(max_norm=0.1))
train_cfg = dict(max_epochs=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=2, T_max=2, eta_min=1e-5, convert_to_iter_based=True),
]

default_hooks = dict(visualization=dict(score_thr=0.5))
