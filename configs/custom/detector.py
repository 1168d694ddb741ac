# A detector for your own images: RetinaNet with PVT-Small.
# `pvt-mm init DATA --task detection` writes this file for your data: docs/own_data.md.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['pvt_mm'])

# Annotation files and image folders, in data_root
data_root = 'data/custom'
train_data = dict(ann_file='annotations/train.json', data_prefix=dict(img='train/'))
val_data = dict(ann_file='annotations/val.json', data_prefix=dict(img='val/'))
# Names of the categories, in the order of the annotation files
classes = ('cat', 'dog')
# Images are resized to fit into these px, the long and the short side
image_size = (1333, 800)
# 1 for grey, 3 for colour, 4 and more for files of that many bands
channels = 3
epochs = 12
batch_size = 4
# Published weights, a file or an address; None to start at random
weights = 'pvt://small'
# A whole detector to fine-tune in place of weights: a file or an address
load_from = None

# All that follows is derived from these settings.
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53] if channels == 3 else [117.0],
        std=[58.395, 57.12, 57.375] if channels == 3 else [57.4],
        bgr_to_rgb=channels == 3,
    ),
    backbone=dict(
        _delete_=True,
        type='PVT',
        arch='small',
        in_channels=channels,
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=weights) if weights and not load_from else None,
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
    bbox_head=dict(num_classes=len(classes)),
)

metainfo = dict(classes=classes)
load_image = dict(type='LoadImageFromFile', color_type={1: 'grayscale', 3: 'color'}.get(channels, 'unchanged'))
load_annotations = dict(type='LoadAnnotations', with_bbox=True)
resize = dict(type='Resize', scale=image_size, keep_ratio=True)
pack = dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
flip = dict(type='RandomFlip', prob=0.5)
train_dataloader = dict(
    batch_size=batch_size,
    dataset=dict(
        data_root=data_root,
        **train_data,
        metainfo=metainfo,
        filter_cfg=None,  # images that are small or without objects are used too
        pipeline=[load_image, load_annotations, resize, flip, dict(type='PackDetInputs')],
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root, **val_data, metainfo=metainfo, pipeline=[load_image, resize, load_annotations, pack]
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f'{data_root}/{val_data["ann_file"]}')
test_evaluator = val_evaluator

# The first epoch warms up; the learning rate is divided by 10 after 2/3 and 11/12 of the epochs.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, begin=0, end=1, by_epoch=True, convert_to_iter_based=True),
    dict(type='MultiStepLR', by_epoch=True, milestones=[round(epochs * 2 / 3), round(epochs * 11 / 12)], gamma=0.1),
]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4))
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1, save_best='coco/bbox_mAP'))

# --cfg-options reaches what was derived from the settings, and refuses their names.
del train_data, val_data, classes, image_size, channels, epochs, batch_size, weights
