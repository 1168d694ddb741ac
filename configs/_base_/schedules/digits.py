# Minutes on 2 cores: AdamW, 8 scenes at a time, a cosine over all iterations after a short warm-up.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.05), clip_grad=dict(max_norm=1.0)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=4, T_max=4, eta_min=1e-5, convert_to_iter_based=True),
]

# --auto-scale-lr adapts the learning rate to another batch
auto_scale_lr = dict(enable=False, base_batch_size=8)
randomness = dict(seed=0)
