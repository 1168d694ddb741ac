"""The Pyramid Vision Transformer (PVT): Wang et al., ICCV 2021, https://arxiv.org/abs/2102.12122.

Inside a stage the features are tokens of shape (batch, height * width, channels). Seen as a map they are a
(batch, channels, height, width) tensor in channels-last memory, so going from one to the other copies nothing. The
parameters are named as in the published checkpoints.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor, nn

from . import cpu
from .archs import (
    check_arch,
    check_frozen_stages,
    check_img_size,
    check_in_channels,
    check_num_classes,
    check_out_indices,
    check_rates,
)
from .base import Backbone
from .layers import Block, Mlp, Size, encode, initialize, resize_position, to_map, to_tokens
from .padding import image_sizes, key_mask, own_position


class PatchEmbed(nn.Module):
    """Splits a map into disjoint patches and projects each to a token (Section 3.2)."""

    def __init__(self, in_channels: int, embed_dims: int, patch_size: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dims, eps=1e-5)

    def forward(self, x: Tensor) -> tuple[Tensor, Size]:
        tokens, size = to_tokens(self.proj(x))
        return self.norm(tokens), size


class SpatialReductionAttention(nn.Module):
    """Multi-head attention whose keys and values come from a map with sides reduced by ``sr_ratio`` (Section 3.3).

    Equations 1 to 3 are here; Equation 4 is ``attention_fn``, by default torch's fused attention.
    """

    attention_fn = staticmethod(F.scaled_dot_product_attention)

    def __init__(self, embed_dims: int, num_heads: int, sr_ratio: int, attn_drop_rate: float, drop_rate: float):
        super().__init__()
        self.num_heads = num_heads
        self.sr_ratio = sr_ratio
        self.attn_drop_rate = attn_drop_rate
        self.q = nn.Linear(embed_dims, embed_dims)
        self.kv = nn.Linear(embed_dims, 2 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(drop_rate)
        if sr_ratio > 1:
            self.sr = nn.Conv2d(embed_dims, embed_dims, sr_ratio, stride=sr_ratio)
            self.norm = nn.LayerNorm(embed_dims, eps=1e-5)

    def reduce(self, x: Tensor, size: Size) -> Tensor:
        """The tokens that keys and values come from."""
        return self.norm(to_tokens(self.sr(to_map(x, size)))[0]) if self.sr_ratio > 1 else x

    def forward(self, x: Tensor, size: Size, attn_mask: Tensor | None = None) -> Tensor:
        q = self.q(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.kv(self.reduce(x, size)).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        out = self.attention_fn(q, k, v, attn_mask=attn_mask, dropout_p=self.attn_drop_rate if self.training else 0.0)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))


class Stage(NamedTuple):
    """One stage. Its parts are registered in the PVT under their published names."""

    patch_embed: PatchEmbed
    pos_embed: nn.Parameter  # (1, H*W, C); in the last stage (1, 1 + H*W, C), the class token's row first
    pos_drop: nn.Dropout
    blocks: nn.ModuleList
    grid: Size  # that pos_embed is for

    def embed(self, x: Tensor, cls_token: Tensor | None = None, extents: Tensor | None = None) -> tuple[Tensor, Size]:
        """The patches of a map (B, C, H, W) as tokens with their positions, and the size of their map.

        Where there is a class token (1, 1, C), it comes first. ``extents``, (height, width) in tokens of each image,
        (B, 2), give each image positions of its own.
        """
        tokens, size = self.patch_embed(x)
        class_rows = self.pos_embed.shape[1] - self.grid[0] * self.grid[1]
        if cls_token is not None:
            tokens = torch.cat([cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
            position = resize_position(self.pos_embed, self.grid, size)
        elif extents is None:
            position = resize_position(self.pos_embed, self.grid, size)[:, class_rows:]
        else:
            position = own_position(self.pos_embed[:, class_rows:], self.grid, extents, size)
        return self.pos_drop(tokens + position), size


@MODELS.register_module()
class PVT(Backbone):
    """Pyramid Vision Transformer: four stages of encoder layers on maps of stride 4, 8, 16 and 32 (Section 3).

    Args:
        arch: A published size, 'tiny', 'small', 'medium' or 'large', or a dict that defines any other: a
            sequence with an entry for each stage under each of ``embed_dims``, ``num_layers``, ``num_heads``,
            ``mlp_ratios``, ``sr_ratios`` and ``patch_sizes``.
        img_size: Image size in pixels, one number or (height, width), that the position embeddings are
            for. For images of other sizes they are resized.
        in_channels: Channels of the image.
        out_indices: The stages, counted from 0, whose maps are returned. No stage past the last of them
            is built.
        drop_rate: Dropout rate after the position embedding, after the attention's projection and in the
            feed-forward layers.
        attn_drop_rate: Dropout rate of the attention weights.
        drop_path_rate: Stochastic depth rate of the last layer; it rises linearly from 0 over all layers of
            the arch.
        frozen_stages: -1 freezes nothing; 0 the first patch embedding; k > 0 the first k stages, with
            their patch and position embeddings. What is frozen stays in evaluation mode.
        with_cp: Recompute each layer in the backward pass instead of keeping its activations.
        chunked: On a CPU, compute the feed-forward layers chunk by chunk, and once more in the backward pass, which
            needs far less memory. Hooks on ``mlp.fc1`` then fire for each chunk, ``with_cp`` computes these layers
            three times, and ``torch.func.grad`` fails: False computes them at once. No effect on a GPU.
        ignore_padding: An image's maps do not depend on how far its batch is padded with zeros at the right and lower
            end: keys in the padding are left out, and positions are resized to each image's own size. The image ends
            at the last row and column that are not all zero; no pixel of an image is zero if it was normalised with
            a mean that is no whole number, as ImageNet's (docs/padding.md).
        num_classes: Makes the model a classifier: with class token, final norm and linear head it returns
            logits in place of maps (Section 4.1).
        pretrained: Short for ``init_cfg=dict(type='Pretrained', checkpoint=pretrained)``; mmseg's base
            configs pass it.
        init_cfg: As in :class:`mmengine.model.BaseModule`. Without it all linear layers and embeddings
            start from a normal of std 0.02, truncated at 2.

    Raises:
        ValueError: A setting is out of its range, or an image is smaller than the arch can reduce (32 px
            a side for the published ones).
        CheckpointError: From ``init_weights``, if the pretrained checkpoint cannot be read or no weight in
            it fits.

    Forward takes images of shape (B, in_channels, H, W) and returns a tuple of one (B, C_i, H_i, W_i) map for
    each of ``out_indices``; with ``num_classes``, (B, num_classes) logits.
    """

    _said_what_is_lost = False

    family = 'PVT'

    def __init__(
        self,
        arch: str | dict = 'small',
        img_size: int | Size = 224,
        in_channels: int = 3,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        chunked: bool = True,
        ignore_padding: bool = False,
        num_classes: int | None = None,
        pretrained: str | None = None,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(init_cfg, pretrained)
        self.arch = arch = check_arch(arch)
        self.img_size = check_img_size(img_size)
        self.out_indices = check_out_indices(out_indices, len(arch['embed_dims']))
        self.num_stages = self.out_indices[-1] + 1
        check_in_channels(in_channels)
        check_rates(drop_rate=drop_rate, attn_drop_rate=attn_drop_rate, drop_path_rate=drop_path_rate)
        check_frozen_stages(frozen_stages, self.num_stages)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        self.ignore_padding = ignore_padding
        self.min_size = self.stride = 1
        depths = iter(torch.linspace(0, drop_path_rate, sum(arch['num_layers']), device='cpu').tolist())
        for i in range(self.num_stages):
            self._add_stage(i, in_channels, drop_rate, attn_drop_rate, depths, chunked)
            in_channels = arch['embed_dims'][i]
        if min(self.img_size) < self.min_size:
            raise ValueError(f'img_size={img_size} must be at least {self.min_size} px a side')
        if num_classes is not None:
            self._add_classifier(num_classes)
        initialize(self)
        for parameter in self._frozen_parameters():
            parameter.requires_grad_(False)

    def _add_stage(
        self, i: int, in_channels: int, drop_rate: float, attn_drop_rate: float, depths: Iterator[float], chunked: bool
    ) -> None:
        embed_dims, num_heads, mlp_ratio, sr_ratio, patch_size, num_layers = (
            self.arch[key][i]
            for key in ('embed_dims', 'num_heads', 'mlp_ratios', 'sr_ratios', 'patch_sizes', 'num_layers')
        )
        self.stride *= patch_size
        self.strides[f'pos_embed{i + 1}'] = self.stride
        self.min_size = max(self.min_size, self.stride * sr_ratio)
        height, width = self.grids[f'pos_embed{i + 1}']
        num_positions = height * width + (i == len(self.arch['embed_dims']) - 1)  # the class token's, in the last stage
        self.add_module(f'patch_embed{i + 1}', PatchEmbed(in_channels, embed_dims, patch_size))
        self.register_parameter(f'pos_embed{i + 1}', nn.Parameter(torch.zeros(1, num_positions, embed_dims)))
        self.add_module(f'pos_drop{i + 1}', nn.Dropout(drop_rate))
        blocks = nn.ModuleList()
        for _ in range(num_layers):
            attn = SpatialReductionAttention(embed_dims, num_heads, sr_ratio, attn_drop_rate, drop_rate)
            mlp = (cpu.ChunkedMlp if chunked else Mlp)(embed_dims, int(embed_dims * mlp_ratio), drop_rate)
            if chunked:
                attn.attention_fn = cpu.attention
            blocks.append(Block(embed_dims, attn, mlp, next(depths)))
        self.add_module(f'block{i + 1}', blocks)

    def _add_classifier(self, num_classes: int) -> None:
        check_num_classes(num_classes)
        if self.ignore_padding:
            raise ValueError(f'ignore_padding=True is for maps: a classifier (num_classes={num_classes}) has none')
        if self.num_stages != len(self.arch['embed_dims']) or self.arch['sr_ratios'][-1] != 1:
            raise ValueError(
                f'num_classes={num_classes} needs the last stage, without spatial reduction: '
                f'out_indices={self.out_indices}, sr_ratios={self.arch["sr_ratios"]}'
            )
        self.num_classes = num_classes
        embed_dims = self.arch['embed_dims'][-1]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.head = nn.Linear(embed_dims, num_classes)

    def stage(self, i: int) -> Stage:
        """The stage ``i``, counted from 0."""
        parts = (getattr(self, f'{part}{i + 1}') for part in ('patch_embed', 'pos_embed', 'pos_drop', 'block'))
        return Stage(*parts, self.grids[f'pos_embed{i + 1}'])

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | Tensor:
        self._check_image(x)
        sizes = image_sizes(x) if self.ignore_padding else None
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for i in range(self.num_stages):
            stage = self.stage(i)
            if self.num_classes is not None and i == self.num_stages - 1:
                tokens = encode(stage.blocks, *stage.embed(x, self.cls_token), self.with_cp)
                return self.head(self.norm(tokens[:, 0]))
            extents = None if sizes is None else sizes / self.strides[f'pos_embed{i + 1}']
            tokens, size = stage.embed(x, extents=extents)
            mask = None if extents is None else key_mask(extents, size, self.arch['sr_ratios'][i])
            x = to_map(encode(stage.blocks, tokens, size, self.with_cp, mask), size)
            if i in self.out_indices:
                # mmcv's compiled ops, RoIAlign among them, read a map as NCHW whatever its strides say.
                maps.append(x.contiguous())
        return tuple(maps)

    def _check_image(self, x: Tensor) -> None:
        height, width = x.shape[2:]
        if min(height, width) < self.min_size:
            raise ValueError(
                f'an image of {height}x{width} px is too small: at least {self.min_size} px a side are needed'
            )
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return
        if (height % self.stride or width % self.stride) and not self._said_what_is_lost:
            self._said_what_is_lost = True
            print_log(
                f'PVT does not see the last {height % self.stride} rows and {width % self.stride} columns '
                f'of a batch of {height}x{width} px, which fill no patch of {self.stride} px: '
                f'data_preprocessor.pad_size_divisor={self.stride} pads them in mmdet, data_preprocessor.test_cfg='
                f'dict(size_divisor={self.stride}) in mmseg (said once)',
                logger='current',
                level=logging.WARNING,
            )

    def frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        stages = [self.stage(i) for i in range(self.frozen_stages)]
        parts = [part for stage in stages for part in (stage.patch_embed, stage.pos_drop, stage.blocks)]
        return [self.patch_embed1, *parts]

    def _frozen_parameters(self) -> Iterator[nn.Parameter]:
        for module in self.frozen_modules():
            yield from module.parameters()
        for i in range(self.frozen_stages):
            yield self.stage(i).pos_embed
