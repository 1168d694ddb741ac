# Mask R-CNN with a ResNet, 3x schedule (36 epochs), multi-scale training, mmdet's SGD recipe.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../datasets/coco_instance_ms.py',
    '../schedules/schedule_3x.py',
    'mmdet::_base_/default_runtime.py',
]
