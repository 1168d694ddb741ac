# A PVT that classifies: the logits are its own, under their published names, and mmpretrain's head takes their loss.
_base_ = 'classifier.py'

model = dict(
    backbone=dict(type='PVT', num_classes=1000, drop_path_rate=0.1),
    neck=dict(type='PVTLogits'),
    head=dict(type='ClsHead', loss=_base_.label_smoothing),
)
