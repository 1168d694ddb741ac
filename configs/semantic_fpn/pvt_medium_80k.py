# Table 4: Semantic FPN with PVT-Medium, 80k iterations. mIoU 41.6 in the paper.
_base_ = 'pvt_small_80k.py'

model = dict(pretrained='https://github.com/whai362/PVT/releases/download/v2/pvt_medium.pth', backbone=dict(arch='medium'))
