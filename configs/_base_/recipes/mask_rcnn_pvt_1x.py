# Mask R-CNN with PVT, 1x schedule (12 epochs).
# The learning rate is that of the paper's text, 1e-4. The published code has 2e-4: pvt_*_1x_code.py.
_base_ = [
    '../models/mask_rcnn_pvt.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../schedules/adamw_1x.py',
    'mmdet::_base_/default_runtime.py',
]
