# PVTv2-B1 with its published ImageNet weights.
backbone = dict(type='PVTv2', arch='b1', init_cfg=dict(type='Pretrained', checkpoint='pvt://v2_b1'))
