# Table 4: Semantic FPN with PVT-Large, 320k iterations, tested at several scales and flipped (tools/test.py --tta).
# mIoU 44.8 in the paper.
_base_ = 'pvt_large_80k.py'

train_cfg = dict(max_iters=320000)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=320000, by_epoch=False)]
