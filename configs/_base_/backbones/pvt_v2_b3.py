# PVTv2-B3 with its published ImageNet weights.
backbone = dict(type='PVTv2', arch='b3', init_cfg=dict(type='Pretrained', checkpoint='pvt://v2_b3'))
