# DeiT's schedule: 300 epochs with AdamW, a cosine from epoch to epoch, the first 5 epochs from 1e-6 up to it.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    # one-dimensional parameters and the class token do not decay; position embeddings do
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0, custom_keys={'cls_token': dict(decay_mult=0.0)}
    ),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=6),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0, end=300, T_max=300),
]

# --auto-scale-lr adapts the learning rate to another batch
auto_scale_lr = dict(enable=False, base_batch_size=1024)
randomness = dict(seed=0)
