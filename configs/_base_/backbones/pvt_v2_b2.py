# PVTv2-B2 with its published ImageNet weights.
backbone = dict(type='PVTv2', arch='b2', init_cfg=dict(type='Pretrained', checkpoint='pvt://v2_b2'))
