# Table 2: RetinaNet with ResNet50, 1x schedule (12 epochs), mmdet's SGD recipe. AP 36.3 in the paper.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'

# torchvision://resnet50, which needs torchvision to be resolved, by its address
model = dict(backbone=dict(init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth')))
