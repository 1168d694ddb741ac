# Table 3: Mask R-CNN with ResNet18, 1x schedule (12 epochs). Box AP 34.0, mask AP 31.2 in the paper.
_base_ = 'r50_1x.py'

model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet18-f37072fd.pth')),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
