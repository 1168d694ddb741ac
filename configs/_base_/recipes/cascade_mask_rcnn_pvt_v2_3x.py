# Cascade Mask R-CNN with PVTv2, 3x schedule (36 epochs), multi-scale training with crops. 8 GPUs x 2 images.
# Each of the three box heads has four convolutions with SyncBN and one linear layer, and the GIoU loss.
_base_ = ['mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py', 'pvt_v2_crop_3x.py']
custom_imports = dict(imports=['pvt_mm'])

model = dict(
    backbone=dict(_delete_=True, drop_path_rate=0.1),
    neck=dict(in_channels=[64, 128, 320, 512]),
    roi_head=dict(
        bbox_head=[
            dict(
                type='ConvFCBBoxHead',
                num_shared_convs=4,
                num_shared_fcs=1,
                in_channels=256,
                conv_out_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[x, x, y, y]),
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                norm_cfg=dict(type='SyncBN', requires_grad=True),
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type='GIoULoss', loss_weight=10.0),
            )
            for x, y in [(0.1, 0.2), (0.05, 0.1), (0.033, 0.067)]
        ]
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    _base_.resize_or_crop,
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

train_cfg = dict(max_epochs=36)
param_scheduler = _base_.steps_3x
optim_wrapper = _base_.adamw
