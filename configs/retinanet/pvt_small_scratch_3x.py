# Does it need ImageNet? (arXiv Figure 5) RetinaNet with PVT-Small from random weights, 3x schedule (36 epochs). AP 33.8
# in the paper.
_base_ = 'pvt_small_3x.py'

model = dict(backbone=dict(init_cfg=None))
