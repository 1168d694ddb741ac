# A Semantic FPN with a small PVTv2 that learns the digit scenes in minutes on 2 cores.
_base_ = 'pvt_nano_digits.py'

model = dict(backbone=dict(_delete_=True, **_base_.pvt_v2_nano))
