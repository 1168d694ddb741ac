# The ResNet peer of pvt_nano_digits.py, of about the same cost.
_base_ = 'pvt_nano_digits.py'

model = dict(
    backbone=dict(_delete_=True, **_base_.r18_nano, stem_channels=24),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
    head=dict(_delete_=True, type='LinearClsHead', num_classes=10, in_channels=192),
)
