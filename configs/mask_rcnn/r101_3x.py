# Table 3: Mask R-CNN with ResNet101, 3x schedule (36 epochs), multi-scale training.
# Box AP 42.8, mask AP 38.5 in the paper.
_base_ = 'r50_3x.py'

model = dict(
    backbone=dict(depth=101, init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet101-63fe2227.pth'))
)
