# Table 3: Mask R-CNN with ResNet18, 3x schedule (36 epochs), multi-scale training.
# Box AP 36.9, mask AP 33.6 in the paper.
_base_ = 'r50_3x.py'

model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet18-f37072fd.pth')),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
