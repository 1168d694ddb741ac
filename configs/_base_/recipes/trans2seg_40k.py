# PVT's arXiv Table 7: ADE20K, 40k iterations of 16 images, all else as in Table 4. The head is for 512x512 px: larger
# images are tested in windows, and windows that are narrower are resized.
# --cfg-options model.test_cfg.mode=whole takes whole images, resized.
_base_ = [
    '../models/trans2seg.py',
    '../datasets/ade20k.py',
    '../schedules/schedule_80k.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['pvt_mm'])

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=150, resize=True, norm_cfg=dict(type='SyncBN')),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)

optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=1e-4))
train_cfg = dict(max_iters=40000)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=40000, by_epoch=False)]

# 4 GPUs x 4 images; --auto-scale-lr adapts the learning rate to another batch
auto_scale_lr = dict(enable=False, base_batch_size=16)
