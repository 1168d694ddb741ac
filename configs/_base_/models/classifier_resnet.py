# A ResNet that classifies, with mmpretrain's names; a row adds its depth, and the channels of its last map.
_base_ = 'classifier.py'

model = dict(
    backbone=dict(type='ResNet', num_stages=4, out_indices=(3,), style='pytorch'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=2048, loss=_base_.label_smoothing),
)
