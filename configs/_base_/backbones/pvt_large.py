# PVT-Large with its published ImageNet weights.
backbone = dict(type='PVT', arch='large', init_cfg=dict(type='Pretrained', checkpoint='pvt://large'))
