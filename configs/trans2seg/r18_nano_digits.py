# The ResNet peer of pvt_nano_digits.py, of about the same cost.
_base_ = 'pvt_nano_digits.py'

model = dict(backbone=dict(_delete_=True, **_base_.r18_nano), decode_head=dict(in_channels=(24, 192)))
