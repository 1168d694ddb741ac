# Table 4: Semantic FPN with PVT-Medium, 80k iterations. mIoU 41.6 in the paper.
# The published code runs 40k iterations of 32 images at 2e-4 instead: pvt_medium_40k.py.
_base_ = 'pvt_small_80k.py'

model = dict(
    pretrained='https://github.com/whai362/PVT/releases/download/v2/pvt_medium.pth', backbone=dict(arch='medium')
)
