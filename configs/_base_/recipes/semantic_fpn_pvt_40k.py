# Semantic FPN with PVT as the published code trains it: 40k iterations of 32 images at twice the paper's learning rate.
_base_ = 'semantic_fpn_pvt_80k.py'

# 8 GPUs x 4 images
optim_wrapper = dict(optimizer=dict(lr=2e-4))
auto_scale_lr = dict(base_batch_size=32)

train_cfg = dict(max_iters=40000)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=40000, by_epoch=False)]
