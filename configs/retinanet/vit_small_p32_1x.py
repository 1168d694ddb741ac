# Table 6: RetinaNet with ViT-Small/32, 1x schedule. AP 31.7 in the paper.
# There are no published weights to start from: name your own with
# --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=FILE
_base_ = '../_base_/recipes/retinanet_pvt_1x.py'

model = dict(
    backbone=dict(type='ColumnarViT', patch_size=32),
    neck=dict(in_channels=[768, 768, 768, 768]),
)
