# Table 2: RetinaNet with ResNet50, 3x schedule (36 epochs), multi-scale training, mmdet's SGD recipe.
# AP 39.0 in the paper.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/coco_detection_ms.py',
    '../_base_/schedules/schedule_3x.py',
    'mmdet::_base_/default_runtime.py',
]

# torchvision://resnet50, which needs torchvision to be resolved, by its address
model = dict(backbone=dict(init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth')))

optim_wrapper = dict(optimizer=dict(lr=0.01))
