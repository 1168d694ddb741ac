# PVTv2: Mask R-CNN with PVTv2-B5, 1x schedule (12 epochs). Box AP 47.4, mask AP 42.5 in its paper.
_base_ = ['../_base_/recipes/mask_rcnn_pvt_1x.py', '../_base_/backbones/pvt_v2_b5.py']

model = dict(backbone=_base_.backbone)

# 8 GPUs x 1 image
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=2e-4 / 1.4))
auto_scale_lr = dict(base_batch_size=8)
