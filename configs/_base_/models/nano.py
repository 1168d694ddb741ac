# Backbones of about the same cost for the embedded digits: a small PVT, and ResNet18 at half its width.
pvt_nano = dict(
    type='PVT',
    arch=dict(
        embed_dims=(32, 64, 128, 256),
        num_layers=(1, 1, 1, 1),
        num_heads=(1, 2, 4, 8),
        mlp_ratios=(4, 4, 4, 4),
        sr_ratios=(8, 4, 2, 1),
        patch_sizes=(4, 2, 2, 2)),
    img_size=128)
r18_nano = dict(type='ResNet', depth=18, base_channels=32, norm_eval=False)
