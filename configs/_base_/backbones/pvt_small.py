# PVT-Small with its published ImageNet weights.
backbone = dict(type='PVT', arch='small', init_cfg=dict(type='Pretrained', checkpoint='pvt://small'))
