"""The published sizes of PVT and PVTv2, and the checks of the settings that define any other."""

from .layers import Size

# The published sizes (the paper's supplement, Table 1), with an entry for each stage.
_STAGES = dict(
    embed_dims=(64, 128, 320, 512),
    num_heads=(1, 2, 5, 8),
    mlp_ratios=(8, 8, 4, 4),
    sr_ratios=(8, 4, 2, 1),
    patch_sizes=(4, 2, 2, 2),
)
ARCHS = {
    'tiny': dict(_STAGES, num_layers=(2, 2, 2, 2)),
    'small': dict(_STAGES, num_layers=(3, 4, 6, 3)),
    'medium': dict(_STAGES, num_layers=(3, 4, 18, 3)),
    'large': dict(_STAGES, num_layers=(3, 8, 27, 3)),
}
# Those of PVTv2 (its Table 1). Where `linear` is set, keys and values are averaged to 7x7, whatever the image's size.
_STAGES_V2 = dict(
    embed_dims=(64, 128, 320, 512),
    num_heads=(1, 2, 5, 8),
    mlp_ratios=(8, 8, 4, 4),
    sr_ratios=(8, 4, 2, 1),
    patch_sizes=(7, 3, 3, 3),
    strides=(4, 2, 2, 2),
    linear=(False, False, False, False),
)
ARCHS_V2 = {
    'b0': dict(_STAGES_V2, num_layers=(2, 2, 2, 2), embed_dims=(32, 64, 160, 256)),
    'b1': dict(_STAGES_V2, num_layers=(2, 2, 2, 2)),
    'b2': dict(_STAGES_V2, num_layers=(3, 4, 6, 3)),
    'b2_li': dict(_STAGES_V2, num_layers=(3, 4, 6, 3), linear=(True, True, True, True)),
    'b3': dict(_STAGES_V2, num_layers=(3, 4, 18, 3)),
    'b4': dict(_STAGES_V2, num_layers=(3, 8, 27, 3)),
    'b5': dict(_STAGES_V2, num_layers=(3, 6, 40, 3), mlp_ratios=(4, 4, 4, 4)),
}


def check_arch(arch: str | dict, archs: dict[str, dict] = ARCHS) -> dict[str, tuple]:
    """The settings behind ``arch``.

    Args:
        arch: A name among ``archs``, or settings with the same keys.
        archs: The published sizes.

    Raises:
        ValueError: It is no published size, or its settings do not fit each other.
    """
    if not isinstance(arch, dict):
        if arch not in archs:
            raise ValueError(f'arch={arch!r} is none of {", ".join(archs)}, nor a dict')
        return archs[arch]
    keys = set(next(iter(archs.values())))
    if set(arch) != keys:
        missing, unknown = keys - set(arch), set(arch) - keys
        raise ValueError(f'arch lacks {sorted(missing)} and has unknown {sorted(unknown)}')
    for key, values in arch.items():
        if not isinstance(values, (list, tuple)) or len(values) != len(arch['embed_dims']) or not values:
            raise ValueError(f'arch: {key}={values!r} must be a sequence with an entry a stage, as many as all others')
        if key == 'linear':
            if not all(isinstance(value, bool) for value in values):
                raise ValueError(f'arch: linear={values!r} must be True or False for each stage')
        elif not all(isinstance(value, (int, float)) and value > 0 for value in values):
            raise ValueError(f'arch: {key}={values!r} must be positive numbers')
    if any(embed_dims % num_heads for embed_dims, num_heads in zip(arch['embed_dims'], arch['num_heads'])):
        raise ValueError(f'arch: embed_dims={arch["embed_dims"]} must be multiples of num_heads={arch["num_heads"]}')
    return {key: tuple(values) for key, values in arch.items()}


def check_img_size(img_size: int | Size) -> Size:
    """``img_size`` as (height, width) in pixels.

    Raises:
        ValueError: It is neither one whole number nor two.
    """
    sides = (img_size, img_size) if isinstance(img_size, int) else img_size
    if not isinstance(sides, (list, tuple)) or len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        raise ValueError(f'img_size={img_size!r} must be a number of pixels or (height, width)')
    return tuple(sides)


def check_out_indices(out_indices: tuple[int, ...], num_stages: int) -> tuple[int, ...]:
    """``out_indices``, checked.

    Raises:
        ValueError: They are not rising numbers of stages.
    """
    if (
        not isinstance(out_indices, (list, tuple))
        or not out_indices
        or sorted(set(out_indices)) != list(out_indices)
        or not set(out_indices) <= set(range(num_stages))
    ):
        raise ValueError(f'out_indices={out_indices!r} must be rising numbers from 0 to {num_stages - 1}')
    return tuple(out_indices)


def check_in_channels(in_channels: int) -> None:
    """Raises ValueError if ``in_channels`` is no number of channels."""
    if not isinstance(in_channels, int) or in_channels < 1:
        raise ValueError(f'in_channels={in_channels!r} must be a whole number from 1')


def check_frozen_stages(frozen_stages: int, num_stages: int) -> None:
    """Raises ValueError if ``frozen_stages`` is none of -1 to ``num_stages``."""
    if frozen_stages not in range(-1, num_stages + 1):
        raise ValueError(
            f'frozen_stages={frozen_stages} must be from -1 to {num_stages}, the number of stages that out_indices '
            'asks for'
        )


def check_num_classes(num_classes: int) -> None:
    """Raises ValueError if ``num_classes`` is no number of classes."""
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f'num_classes={num_classes!r} must be a whole number from 1')


def check_rates(**rates: float) -> None:
    """Raises ValueError, by name, for a rate that is not a number from 0 and below 1."""
    for name, rate in rates.items():
        if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise ValueError(f'{name}={rate!r} must be a number from 0 and below 1')
