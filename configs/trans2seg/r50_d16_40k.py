# arXiv Table 7: Trans2Seg with ResNet50 of stride 16, 40k iterations. mIoU 39.7 in the paper, which is silent about the
# optimizer: AdamW, as with PVT.
_base_ = '../_base_/recipes/trans2seg_40k.py'

model = dict(
    backbone=dict(
        type='ResNetV1c',
        depth=50,
        strides=(1, 2, 2, 1),
        dilations=(1, 1, 1, 2),
        contract_dilation=True,
        norm_cfg=dict(type='SyncBN'),
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnet50_v1c'),
    ),
    decode_head=dict(in_channels=(256, 2048), feat_size=(32, 32)),
)
