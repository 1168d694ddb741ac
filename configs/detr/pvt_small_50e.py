# Table 5: DETR with PVT-Small, 50 epochs. AP 34.7 in the paper. No convolution in it has overlapping windows.
_base_ = 'r50_50e.py'
custom_imports = dict(imports=['pvt_mm'])

model = dict(
    backbone=dict(
        _delete_=True,
        type='PVT',
        arch='small',
        drop_path_rate=0.1,
        out_indices=(3,),
        init_cfg=dict(
            type='Pretrained', checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_small.pth'
        ),
    ),
    neck=dict(in_channels=[512]),
)
