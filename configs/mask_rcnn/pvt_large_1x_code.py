# Mask R-CNN with PVT-Large, 1x schedule, as the published code trains it: 8 images at a time at 2e-4 / 1.4.
# Box AP 42.9, mask AP 39.5 in the paper.
_base_ = 'pvt_large_1x.py'

# 8 GPUs x 1 image
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=2e-4 / 1.4))
auto_scale_lr = dict(base_batch_size=8)
