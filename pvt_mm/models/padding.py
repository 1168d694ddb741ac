"""How an image is kept apart from the zeros that its batch is padded with.

Images of a batch are padded with zeros at the right and lower end. mmdet and mmseg do so after they normalise the
image, and hand the backbone the batch alone: the images' sizes are read off the zeros.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import Size, to_map, to_tokens


def image_sizes(x: Tensor) -> Tensor:
    """The size in pixels of each image of a batch: up to its last row and its last column that are not all zero.

    Args:
        x: (B, C, H, W).

    Returns:
        (height, width) of each, (B, 2) in float32, at least 1.
    """
    inside = (x != 0).any(1)
    sizes = [
        (lines * torch.arange(1, lines.shape[1] + 1, device=x.device)).amax(1)
        for lines in (inside.any(2), inside.any(1))
    ]
    return torch.stack(sizes, 1).clamp(min=1).float()


def own_position(pos_embed: Tensor, grid: Size, extents: Tensor, size: Size) -> Tensor:
    """Resizes a position embedding bilinearly to each image's own extent, in place of that of the batch.

    Args:
        pos_embed: (1, H*W, C).
        grid: Its grid (H, W).
        extents: (height, width) in tokens of each image, (B, 2); they need not be whole.
        size: The size (H', W') of the batch's map. Tokens beyond an image get the position of its border.

    Returns:
        (B, H'*W', C).
    """
    # Half precision is too coarse for the places to sample at.
    exact = pos_embed.to(torch.promote_types(pos_embed.dtype, torch.float32))
    rows, columns = (
        (2 * torch.arange(number, device=exact.device) + 1) / extents[:, i, None] - 1 for i, number in enumerate(size)
    )
    places = torch.stack([columns[:, None].expand(-1, size[0], -1), rows[:, :, None].expand(-1, -1, size[1])], 3)
    source = to_map(exact, grid).expand(extents.shape[0], -1, -1, -1)
    resized = F.grid_sample(source, places.to(exact.dtype), padding_mode='border', align_corners=False)
    return to_tokens(resized)[0].to(pos_embed.dtype)


def key_mask(extents: Tensor, size: Size, sr_ratio: int) -> Tensor:
    """Which keys stand for some of their own image: those whose window begins in it.

    Args:
        extents: (height, width) in tokens of each image, (B, 2).
        size: The size (H, W) in tokens of the batch's map.
        sr_ratio: Side of a key's window in tokens.

    Returns:
        (B, 1, 1, M) booleans for the M keys of all heads and queries.
    """
    rows, columns = (
        torch.arange(number // sr_ratio, device=extents.device) * sr_ratio < extents[:, i, None]
        for i, number in enumerate(size)
    )
    return (rows[:, :, None] & columns[:, None]).flatten(1)[:, None, None]
