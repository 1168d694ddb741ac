# Mask R-CNN with PVT, 1x schedule (12 epochs).
# The published config of Mask R-CNN has a learning rate of 2e-4, the paper 1e-4, which this one follows.
_base_ = [
    '../models/mask_rcnn_pvt.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../schedules/adamw_1x.py',
    'mmdet::_base_/default_runtime.py',
]
