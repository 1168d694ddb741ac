# Sparse R-CNN with PVTv2 and 300 proposals, mmdet's own 3x recipe, multi-scale training with crops.
_base_ = 'mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_300-proposals_crop-ms-480-800-3x_coco.py'
custom_imports = dict(imports=['pvt_mm'])

model = dict(
    backbone=dict(_delete_=True, drop_path_rate=0.1),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

# 8 GPUs x 1 image, as published
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=2.5e-5 / 1.4))
auto_scale_lr = dict(base_batch_size=8)
