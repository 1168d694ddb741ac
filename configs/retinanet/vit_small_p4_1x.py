# Table 6: RetinaNet with ViT-Small/4, 1x schedule. The paper ran out of 32 GB of memory.
_base_ = 'vit_small_p32_1x.py'

model = dict(backbone=dict(patch_size=4))
