# RetinaNet on the maps of a PVT, which a row adds to it.
_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'
custom_imports = dict(imports=['pvt_mm'])

model = dict(
    backbone=dict(_delete_=True, drop_path_rate=0.1),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
