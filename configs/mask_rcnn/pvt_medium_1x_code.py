# Mask R-CNN with PVT-Medium, 1x schedule, as the published code trains it: at twice the learning rate of the paper's
# text. Box AP 42.0, mask AP 39.0 in the paper.
_base_ = 'pvt_medium_1x.py'

optim_wrapper = dict(optimizer=dict(lr=2e-4))
