# Table 4: Semantic FPN with PVT-Tiny, 80k iterations. mIoU 35.7 in the paper.
# The published code runs 40k iterations of 32 images at 2e-4 instead: pvt_tiny_40k.py.
_base_ = 'pvt_small_80k.py'

model = dict(pretrained='https://github.com/whai362/PVT/releases/download/v2/pvt_tiny.pth', backbone=dict(arch='tiny'))
