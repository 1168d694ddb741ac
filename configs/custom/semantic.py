# A semantic segmenter for your own images: Semantic FPN with PVT-Small.
# `pvt-mm init DATA --task semantic` writes this file for your data: docs/own_data.md.
_base_ = ['mmseg::_base_/models/fpn_r50.py', 'mmseg::_base_/default_runtime.py']
custom_imports = dict(imports=['pvt_mm'])

# Image and label map folders, in data_root, and lists of the images' names without img_suffix; without a list, all
data_root = 'data/custom'
train_data = dict(ann_file='', data_prefix=dict(img_path='images/train', seg_map_path='masks/train'))
val_data = dict(ann_file='', data_prefix=dict(img_path='images/val', seg_map_path='masks/val'))
img_suffix = '.jpg'
seg_map_suffix = '.png'
# Names of the values 0, 1, 2 ... of the label maps; 255 is ignored
classes = ('background', 'cat', 'dog')
# True where the value 0 is ignored too and the first class has the value 1
reduce_zero_label = False
# Images are resized to fit into these px, the long and the short side; training crops squares of the short side
image_size = (2048, 512)
# 1 for grey, 3 for colour, 4 and more for files of that many bands
channels = 3
epochs = 40
batch_size = 4
# Published weights, a file or an address; None to start at random
weights = 'pvt://small'
# A whole segmenter to fine-tune in place of weights: a file or an address
load_from = None

# All that follows is derived from these settings.
crop_size = (min(image_size), min(image_size))
model = dict(
    pretrained=None,
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53] if channels == 3 else [117.0],
        std=[58.395, 57.12, 57.375] if channels == 3 else [57.4],
        bgr_to_rgb=channels == 3,
        size=crop_size,
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
    decode_head=dict(num_classes=len(classes)),
)

load_image = dict(type='LoadImageFromFile', color_type={1: 'grayscale', 3: 'color'}.get(channels, 'unchanged'))
common = dict(
    type='BaseSegDataset',
    data_root=data_root,
    metainfo=dict(classes=classes),
    img_suffix=img_suffix,
    seg_map_suffix=seg_map_suffix,
    reduce_zero_label=reduce_zero_label,
)
train_pipeline = [
    load_image,
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=image_size, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    *([dict(type='PhotoMetricDistortion')] if channels == 3 else []),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    load_image,
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='ResizeToMultiple', size_divisor=32),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**common, **train_data, pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(**common, **val_data, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

# The first epoch warms up; the learning rate falls to 0.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, begin=0, end=1, by_epoch=True, convert_to_iter_based=True),
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=epochs, by_epoch=True, convert_to_iter_based=True),
]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4))
auto_scale_lr = dict(enable=False, base_batch_size=16)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50),
    checkpoint=dict(type='CheckpointHook', max_keep_ckpts=1, save_best='mIoU'),
    visualization=dict(type='SegVisualizationHook'),
)
log_processor = dict(by_epoch=True)

# --cfg-options reaches what was derived from the settings, and refuses their names.
del train_data, val_data, classes, img_suffix, seg_map_suffix, reduce_zero_label
del image_size, channels, epochs, batch_size, weights
