# Semantic FPN on ADE20K, 80k iterations, mmseg's SGD recipe.
_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    '../datasets/ade20k.py',
    '../schedules/schedule_80k.py',
    'mmseg::_base_/default_runtime.py',
]

model = dict(data_preprocessor=dict(size=(512, 512)), decode_head=dict(num_classes=150))

# 4 GPUs x 4 images; --auto-scale-lr adapts the learning rate to another batch
auto_scale_lr = dict(enable=False, base_batch_size=16)
