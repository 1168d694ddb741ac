# Semantic FPN with PVT, 80k iterations with AdamW (Section 5.3).
_base_ = 'semantic_fpn_80k.py'
custom_imports = dict(imports=['pvt_mm'])

model = dict(
    pretrained=None,
    backbone=dict(_delete_=True, drop_path_rate=0.1),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=1e-4))
