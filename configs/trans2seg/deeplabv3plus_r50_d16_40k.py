# arXiv Table 7: DeepLabV3+ with ResNet50 of stride 16, 40k iterations. mIoU 40.6 in the paper.
_base_ = 'deeplabv3plus_r50_d8_40k.py'

model = dict(
    backbone=dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
    decode_head=dict(dilations=(1, 6, 12, 18)),
)
