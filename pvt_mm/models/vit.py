"""The columnar Vision Transformer that the paper sets beside PVT: tokens of one width and one resolution throughout."""

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import cpu
from .base import Backbone
from .layers import Block, Mlp, average_pool, initialize, resize_position, to_map, to_tokens


class Attention(nn.Module):
    """Multi-head attention of all tokens to all tokens."""

    def __init__(self, embed_dims: int, num_heads: int, qkv_bias: bool):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@MODELS.register_module()
class ColumnarViT(Backbone):
    """Vision Transformer whose layers feed a pyramid (Table 6); by default the paper's ViT-Small.

    Every token keeps its width and its place; the map of layer ``out_indices[i]`` is resampled to stride
    ``out_strides[i]``: bilinearly where it grows, by averaging where it shrinks. The resampling has no weights. The
    parameters are named as in timm's checkpoints; the class token has a row in the position embedding, which a dense
    model does not use.

    Args:
        patch_size: Side of a patch in pixels: the stride of all tokens.
        img_size: Side in pixels of the square images that the position embedding is for; others get it resized.
        embed_dims: Width of the tokens.
        num_layers: Encoder layers.
        num_heads: Heads of the attention.
        mlp_ratio: Width of the feed-forward layer, in ``embed_dims``.
        qkv_bias: Whether queries, keys and values have a bias.
        out_indices: The layers, counted from 0, whose maps are returned.
        out_strides: The stride in pixels of each of these maps.
        drop_path_rate: Stochastic depth of the last layer; it rises linearly from 0.
        with_cp: Recompute each layer in the backward pass instead of keeping its activations.
        chunked: As in :class:`PVT`.
        pretrained: As in :class:`PVT`.
        init_cfg: As in :class:`mmengine.model.BaseModule`.

    Raises:
        ValueError: The settings do not fit each other, or an image is smaller than a patch or the largest stride.

    Forward takes images of shape (B, 3, H, W) and returns a tuple of (B, embed_dims, H // stride, W // stride) maps.
    """

    def __init__(
        self,
        patch_size: int = 16,
        img_size: int = 224,
        embed_dims: int = 768,
        num_layers: int = 8,
        num_heads: int = 8,
        mlp_ratio: float = 3,
        qkv_bias: bool = False,
        out_indices: tuple[int, ...] = (1, 3, 5, 7),
        out_strides: tuple[int, ...] = (4, 8, 16, 32),
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        chunked: bool = True,
        pretrained: str | None = None,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(init_cfg, pretrained)
        if embed_dims % num_heads:
            raise ValueError(f'embed_dims={embed_dims} must be a multiple of num_heads={num_heads}')
        if len(out_indices) != len(out_strides) or not set(out_indices) <= set(range(num_layers)):
            raise ValueError(
                f'out_indices={out_indices} must be from 0 to {num_layers - 1}, and have one entry for '
                f'each of out_strides={out_strides}'
            )
        if img_size < patch_size:
            raise ValueError(f'img_size={img_size} is smaller than patch_size={patch_size}')
        self.out_strides = dict(zip(out_indices, out_strides))
        self.min_size = max(patch_size, *out_strides)
        self.with_cp = with_cp
        self.img_size = (img_size, img_size)
        self.strides = dict(pos_embed=patch_size)
        num_positions = (img_size // patch_size) ** 2
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, embed_dims, patch_size, stride=patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_positions, embed_dims))
        rates = torch.linspace(0, drop_path_rate, num_layers, device='cpu').tolist()
        self.blocks = nn.ModuleList(
            Block(
                embed_dims,
                Attention(embed_dims, num_heads, qkv_bias),
                (cpu.ChunkedMlp if chunked else Mlp)(embed_dims, int(embed_dims * mlp_ratio)),
                rates[i],
            )
            for i in range(max(out_indices) + 1)
        )
        initialize(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        height, width = x.shape[2:]
        if min(height, width) < self.min_size:
            raise ValueError(
                f'an image of {height}x{width} px is too small: at least {self.min_size} px a side are needed'
            )
        tokens, size = to_tokens(self.patch_embed.proj(x))
        tokens = tokens + resize_position(self.pos_embed, self.grids['pos_embed'], size)[:, 1:]
        maps = []
        for i, block in enumerate(self.blocks):
            if self.with_cp and tokens.requires_grad:
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
            if i in self.out_strides:
                maps.append(_resample(to_map(tokens, size), height, width, self.out_strides[i]))
        return tuple(maps)


def _resample(x: Tensor, height: int, width: int, stride: int) -> Tensor:
    """A map resized to the given stride of an image of ``height`` x ``width``."""
    size = (height // stride, width // stride)
    if size[0] <= x.shape[2] and size[1] <= x.shape[3]:
        return average_pool(x, size).contiguous()
    return F.interpolate(x.contiguous(), size=size, mode='bilinear', align_corners=False)
