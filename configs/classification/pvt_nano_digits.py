# A small PVT that learns to tell the digits apart in minutes on 2 cores; its weights fit retinanet/pvt_nano_digits.py.
_base_ = [
    '../_base_/models/nano.py',
    '../_base_/datasets/digits_classes.py',
    '../_base_/schedules/digits.py',
    '../_base_/runtimes/mmpretrain.py',
]

model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(
        type='ClsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
    ),
    backbone=dict(_base_.pvt_nano, img_size=64, num_classes=10),
    neck=dict(type='PVTLogits'),
    head=dict(type='ClsHead'),
)

# with the learning rate of the detectors' schedule it does not begin to learn
train_cfg = dict(max_epochs=12)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=12, T_max=12, eta_min=1e-5, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=32)
