# Table 3: Mask R-CNN with ResNet50, 1x schedule (12 epochs), mmdet's SGD recipe.
# Box AP 38.0, mask AP 34.4 in the paper.
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

# torchvision://resnet50, which needs torchvision to be resolved, by its address
model = dict(backbone=dict(init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth')))
