# ATSS with PVTv2, 3x schedule (36 epochs), multi-scale training with crops. 8 GPUs x 2 images.
_base_ = ['mmdet::atss/atss_r50_fpn_1x_coco.py', 'pvt_v2_crop_3x.py']
custom_imports = dict(imports=['pvt_mm'])

model = dict(
    backbone=dict(_delete_=True, drop_path_rate=0.1),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

train_dataloader = dict(dataset=dict(pipeline=_base_.box_pipeline))

train_cfg = dict(max_epochs=36)
param_scheduler = _base_.steps_3x
optim_wrapper = _base_.adamw
