# Table 4: Semantic FPN with ResNet50, 80k iterations, mmseg's SGD recipe. mIoU 36.7 in the paper.
_base_ = '../_base_/recipes/semantic_fpn_80k.py'
