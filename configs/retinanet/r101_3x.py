# Table 2: RetinaNet with ResNet101, 3x schedule (36 epochs), multi-scale training. AP 40.9 in the paper.
_base_ = 'r50_3x.py'

model = dict(
    backbone=dict(depth=101, init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet101-63fe2227.pth'))
)
