# A classifier for your own images: PVT-Small. Needs mmpretrain: docs/classification.md.
# `pvt-mm init DATA --task classification` writes this file for your data: docs/own_data.md.
default_scope = 'mmpretrain'
custom_imports = dict(imports=['pvt_mm'])

# Folders with a folder of images for each class, in data_root; or lists of images, a line 'cat/a.jpg 0' for each
data_root = 'data/custom'
train_data = dict(ann_file='', data_prefix=dict(img_path='train'))
val_data = dict(ann_file='', data_prefix=dict(img_path='val'))
# Names of the classes, in the alphabetical order of the folders
classes = ('cat', 'dog')
# Side in px of the square that is cut from each image
image_size = 224
# 1 for grey, 3 for colour
channels = 3
epochs = 30
batch_size = 32
# Published weights, a file or an address; None to start at random
weights = 'pvt://small'
# A whole classifier to fine-tune in place of weights: a file or an address
load_from = None

# All that follows is derived from these settings.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor',
        mean=[123.675, 116.28, 103.53] if channels == 3 else [117.0],
        std=[58.395, 57.12, 57.375] if channels == 3 else [57.4],
        to_rgb=channels == 3,
    ),
    backbone=dict(
        type='PVT',
        arch='small',
        in_channels=channels,
        img_size=image_size,
        num_classes=len(classes),
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=weights) if weights and not load_from else None,
    ),
    neck=dict(type='PVTLogits'),
    head=dict(type='ClsHead', loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
)

load_image = dict(type='LoadImageFromFile', color_type='grayscale' if channels == 1 else 'color')
train_pipeline = [
    load_image,
    dict(type='RandomResizedCrop', scale=image_size, crop_ratio_range=(0.3, 1.0), interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    load_image,
    dict(type='ResizeEdge', scale=round(image_size * 8 / 7), edge='short', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=image_size),
    dict(type='PackInputs'),
]
common = dict(type='CustomDataset', data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**common, **train_data, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=batch_size,
    num_workers=4,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**common, **val_data, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

# The first epoch warms up; the learning rate falls along a cosine.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, begin=0, end=1, by_epoch=True, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, begin=0, end=epochs, by_epoch=True, convert_to_iter_based=True),
]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05))
auto_scale_lr = dict(enable=False, base_batch_size=32)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1, save_best='accuracy/top1'),
    visualization=dict(type='VisualizationHook', enable=False),
)
visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])

# --cfg-options reaches what was derived from the settings, and refuses their names.
del train_data, val_data, classes, image_size, channels, epochs, batch_size, weights
