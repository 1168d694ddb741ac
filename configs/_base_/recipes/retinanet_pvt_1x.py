# RetinaNet with PVT, 1x schedule (12 epochs).
_base_ = [
    '../models/retinanet_pvt.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../schedules/adamw_1x.py',
    'mmdet::_base_/default_runtime.py',
]
