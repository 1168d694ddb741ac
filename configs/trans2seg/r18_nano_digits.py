# The ResNet peer of pvt_nano_digits.py, of about the same cost.
_base_ = 'pvt_nano_digits.py'

model = dict(
    backbone=dict(
        _delete_=True, **_base_.r18_nano, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 1, 2)
    ),
    decode_head=dict(in_channels=(24, 96)),
)

optim_wrapper = dict(optimizer=dict(lr=3e-3))  # with the PVT's, its class queries stay alike
