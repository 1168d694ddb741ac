# PVT-Medium with its published ImageNet weights.
backbone = dict(type='PVT', arch='medium', init_cfg=dict(type='Pretrained', checkpoint='pvt://medium'))
