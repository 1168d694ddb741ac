# PVTv2-B4 with its published ImageNet weights.
backbone = dict(type='PVTv2', arch='b4', init_cfg=dict(type='Pretrained', checkpoint='pvt://v2_b4'))
