# Mask R-CNN with PVT, 3x schedule (36 epochs), multi-scale training.
# The published config of Mask R-CNN has a learning rate of 2e-4, the paper 1e-4, which this one follows.
_base_ = [
    '../models/mask_rcnn_pvt.py',
    '../datasets/coco_instance_ms.py',
    '../schedules/adamw_3x.py',
    'mmdet::_base_/default_runtime.py',
]
