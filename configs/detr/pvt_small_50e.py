# Table 5: DETR with PVT-Small, 50 epochs. AP 34.7 in the paper. No convolution in it has overlapping windows.
_base_ = ['../_base_/recipes/detr_50e.py', '../_base_/backbones/pvt_small.py']
custom_imports = dict(imports=['pvt_mm'])

model = dict(
    data_preprocessor=dict(pad_size_divisor=32),  # as published: PVT drops what fills no patch
    backbone=dict(_delete_=True, **_base_.backbone, drop_path_rate=0.1, out_indices=(3,)),
    neck=dict(in_channels=[512]),
)
