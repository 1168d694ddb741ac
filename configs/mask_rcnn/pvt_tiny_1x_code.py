# Mask R-CNN with PVT-Tiny, 1x schedule, as the published code trains it: at twice the learning rate of the paper's
# text. Box AP 36.7, mask AP 35.1 in the paper.
_base_ = 'pvt_tiny_1x.py'

optim_wrapper = dict(optimizer=dict(lr=2e-4))
