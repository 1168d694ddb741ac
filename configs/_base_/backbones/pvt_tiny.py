# PVT-Tiny with its published ImageNet weights.
backbone = dict(type='PVT', arch='tiny', init_cfg=dict(type='Pretrained', checkpoint='pvt://tiny'))
