# PVTv2-B0 with its published ImageNet weights.
backbone = dict(type='PVTv2', arch='b0', init_cfg=dict(type='Pretrained', checkpoint='pvt://v2_b0'))
