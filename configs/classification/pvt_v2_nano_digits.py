# The PVTv2 of about the size of pvt_nano_digits.py.
_base_ = 'pvt_nano_digits.py'

model = dict(backbone=dict(_delete_=True, **_base_.pvt_v2_nano, num_classes=10))
