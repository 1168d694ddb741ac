# RetinaNet with PVT, 3x schedule (36 epochs), multi-scale training.
_base_ = [
    '../models/retinanet_pvt.py',
    '../datasets/coco_detection_ms.py',
    '../schedules/adamw_3x.py',
    'mmdet::_base_/default_runtime.py',
]
