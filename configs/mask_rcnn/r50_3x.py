# Table 3: Mask R-CNN with ResNet50, 3x schedule (36 epochs), multi-scale training, mmdet's SGD recipe.
# Box AP 41.0, mask AP 37.1 in the paper.
_base_ = ['../_base_/recipes/mask_rcnn_resnet_3x.py', '../_base_/backbones/r50.py']

model = dict(backbone=_base_.backbone)
