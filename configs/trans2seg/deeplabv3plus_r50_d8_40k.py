# arXiv Table 7: DeepLabV3+ with ResNet50 of stride 8, 40k iterations, mmseg's SGD recipe. mIoU 41.5 in the paper.
# Width 256 and no auxiliary head, by the paper's parameters.
_base_ = [
    'mmseg::_base_/models/deeplabv3plus_r50-d8.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_80k.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['pvt_mm'])

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(type='PVTDeepLabV3PlusHead', num_classes=150, channels=256),
    auxiliary_head=None,
)

train_cfg = dict(max_iters=40000)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=40000, by_epoch=False)]

# 4 GPUs x 4 images; --auto-scale-lr adapts the learning rate to another batch
auto_scale_lr = dict(enable=False, base_batch_size=16)
