# PVTv2-B5 with its published ImageNet weights.
backbone = dict(type='PVTv2', arch='b5', init_cfg=dict(type='Pretrained', checkpoint='pvt://v2_b5'))
