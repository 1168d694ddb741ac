# Backbones of about the same cost for the embedded digits: small PVTs, and ResNet18 with 3/8 of its channels.
pvt_nano = dict(
    type='PVT',
    arch=dict(
        embed_dims=(32, 64, 128, 256),
        num_layers=(1, 1, 1, 1),
        num_heads=(1, 2, 4, 8),
        mlp_ratios=(4, 4, 4, 4),
        sr_ratios=(4, 2, 1, 1),  # half of the published ones: with these a scene has 8x8 keys in stages 1 to 3
        patch_sizes=(4, 2, 2, 2),
    ),
    img_size=128,
)
pvt_v2_nano = dict(
    type='PVTv2',
    arch=dict(pvt_nano['arch'], patch_sizes=(7, 3, 3, 3), strides=(4, 2, 2, 2), linear=(False,) * 4),
)
r18_nano = dict(type='ResNet', depth=18, base_channels=24, norm_eval=False)
