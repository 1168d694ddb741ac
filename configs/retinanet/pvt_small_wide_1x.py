# Deeper or wider: RetinaNet with PVT-Small 1.4 times as wide, 1x schedule. AP 40.8 in the paper.
# There are no published weights to start from: name your own with
# --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=FILE
_base_ = '../_base_/recipes/retinanet_pvt_1x.py'

model = dict(
    backbone=dict(
        type='PVT',
        arch=dict(
            embed_dims=(89, 178, 445, 712),
            num_layers=(3, 4, 6, 3),
            num_heads=(1, 2, 5, 8),
            mlp_ratios=(8, 8, 4, 4),
            sr_ratios=(8, 4, 2, 1),
            patch_sizes=(4, 2, 2, 2),
        ),
    ),
    neck=dict(in_channels=[89, 178, 445, 712]),
)
