# Semantic FPN with PVT-Large as the published code trains it: 40k iterations of 32 images at twice the paper's
# learning rate. mIoU 43.5 in its model zoo.
_base_ = 'pvt_small_40k.py'

model = dict(
    pretrained='https://github.com/whai362/PVT/releases/download/v2/pvt_large.pth', backbone=dict(arch='large')
)
