# Table 2: RetinaNet with ResNet101, 1x schedule (12 epochs). AP 38.5 in the paper.
_base_ = 'r50_1x.py'

model = dict(
    backbone=dict(depth=101, init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet101-63fe2227.pth'))
)
