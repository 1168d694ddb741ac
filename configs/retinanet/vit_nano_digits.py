# The columnar peer of pvt_nano_digits.py, of about the same cost: what stands in for Table 6's ViT on the digits.
_base_ = 'pvt_nano_digits.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='ColumnarViT',
        patch_size=16,
        img_size=128,
        embed_dims=128,
        num_layers=8,
        num_heads=4,
        mlp_ratio=4,
    ),
    neck=dict(in_channels=[128, 128, 128, 128]),
)
