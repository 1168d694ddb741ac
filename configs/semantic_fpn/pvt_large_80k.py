# Table 4: Semantic FPN with PVT-Large, 80k iterations. mIoU 42.1 in the paper.
_base_ = 'pvt_small_80k.py'

model = dict(pretrained='https://github.com/whai362/PVT/releases/download/v2/pvt_large.pth', backbone=dict(arch='large'))
