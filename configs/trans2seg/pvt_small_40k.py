# arXiv Table 7: Trans2Seg with PVT-Small, 40k iterations.
# mIoU 42.6 in the paper.
_base_ = ['../_base_/recipes/trans2seg_40k.py', '../_base_/backbones/pvt_small.py']

model = dict(backbone=dict(drop_path_rate=0.1, **_base_.backbone))
