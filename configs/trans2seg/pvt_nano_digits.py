# Trans2Seg with a small PVT that learns the digit scenes in minutes on 2 cores.
_base_ = [
    '../_base_/models/trans2seg.py',
    '../_base_/models/nano.py',
    '../_base_/datasets/digits_segmentation.py',
    '../_base_/schedules/digits_segmentation.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['pvt_mm'])

model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(_base_.pvt_nano, out_indices=(0, 1, 2)),
    decode_head=dict(
        # the map of stride 16, on which a scene is 8x8: at stride 32 several digits share a place
        in_channels=(32, 128),
        in_index=(0, 2),
        feat_size=(8, 8),
        channels=16,
        num_classes=11,
        embed_dims=64,
        num_layers=1,  # the norms are the published BN: groups of GN would let the features outweigh the class maps
    ),
    test_cfg=dict(mode='whole'),
)

# with 3e-3 the class queries stay alike
optim_wrapper = dict(optimizer=dict(lr=1e-3))
train_cfg = dict(max_epochs=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=8, T_max=8, eta_min=1e-5, convert_to_iter_based=True),
]

log_processor = dict(by_epoch=True)
