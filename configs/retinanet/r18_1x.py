# Table 2: RetinaNet with ResNet18, 1x schedule (12 epochs). AP 31.8 in the paper.
_base_ = 'r50_1x.py'

model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet18-f37072fd.pth')),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
