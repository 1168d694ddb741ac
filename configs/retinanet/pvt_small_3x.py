# Table 2: RetinaNet with PVT-Small, 3x schedule (36 epochs), multi-scale training. AP 42.2 in the paper.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/coco_detection_ms.py',
    '../_base_/schedules/schedule_3x.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['pvt_mm'])

model = dict(
    backbone=dict(
        _delete_=True,
        type='PVT',
        arch='small',
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='https://github.com/whai362/PVT/releases/download/v2/pvt_small.pth'
        ),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

# 8 GPUs x 2 images; --auto-scale-lr adapts the learning rate to another batch
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=1e-4))
