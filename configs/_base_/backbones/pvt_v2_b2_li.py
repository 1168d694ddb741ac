# PVTv2-B2-Li with its published ImageNet weights.
backbone = dict(type='PVTv2', arch='b2_li', init_cfg=dict(type='Pretrained', checkpoint='pvt://v2_b2_li'))
