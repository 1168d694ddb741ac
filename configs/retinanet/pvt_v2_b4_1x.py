# PVTv2: RetinaNet with PVTv2-B4, 1x schedule (12 epochs). AP 46.1 in its paper.
_base_ = ['../_base_/recipes/retinanet_pvt_1x.py', '../_base_/backbones/pvt_v2_b4.py']

model = dict(backbone=_base_.backbone)

# 8 GPUs x 1 image
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=1e-4 / 1.4))
auto_scale_lr = dict(base_batch_size=8)
