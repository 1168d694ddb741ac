# Does it need ImageNet? (arXiv Figure 5) RetinaNet with PVT-Small from random weights, 1x schedule (12 epochs). AP 26.6
# in the paper.
_base_ = 'pvt_small_1x.py'

model = dict(backbone=dict(init_cfg=None))
