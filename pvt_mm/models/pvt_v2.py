"""PVTv2: Wang et al., 2022, https://arxiv.org/abs/2106.13797.

Against PVT: patches overlap, a depth-wise convolution in the feed-forward layer stands in for position embeddings, each
stage ends in a norm, and the linear variants average keys and values to 7x7. The parameters are named as in the
published checkpoints.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn

from . import cpu
from .archs import (
    ARCHS_V2,
    check_arch,
    check_frozen_stages,
    check_in_channels,
    check_num_classes,
    check_out_indices,
    check_rates,
)
from .base import Backbone
from .layers import Block, ConvMlp, Size, average_pool, encode, initialize, to_map, to_tokens
from .pvt import SpatialReductionAttention

POOL_SIZE = (7, 7)  # of the linear variants


class OverlapPatchEmbed(nn.Module):
    """Projects overlapping patches of a map to tokens (Section 3.2)."""

    def __init__(self, in_channels: int, embed_dims: int, patch_size: int, stride: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, stride=stride, padding=patch_size // 2)
        self.norm = nn.LayerNorm(embed_dims, eps=1e-5)

    def forward(self, x: Tensor) -> tuple[Tensor, Size]:
        tokens, size = to_tokens(self.proj(x))
        return self.norm(tokens), size


class LinearAttention(SpatialReductionAttention):
    """Multi-head attention whose keys and values come from a map averaged to 7x7, whatever its size (Section 3.1)."""

    def __init__(self, embed_dims: int, num_heads: int, attn_drop_rate: float, drop_rate: float):
        super().__init__(embed_dims, num_heads, 1, attn_drop_rate, drop_rate)
        self.sr = nn.Conv2d(embed_dims, embed_dims, 1)
        self.norm = nn.LayerNorm(embed_dims, eps=1e-5)

    def reduce(self, x: Tensor, size: Size) -> Tensor:
        return F.gelu(self.norm(to_tokens(self.sr(average_pool(to_map(x, size), POOL_SIZE)))[0]))


@MODELS.register_module()
class PVTv2(Backbone):
    """Pyramid Vision Transformer v2: four stages of encoder layers on maps of stride 4, 8, 16 and 32.

    Args:
        arch: A published size, 'b0' to 'b5' or 'b2_li', or a dict that defines any other: a sequence with an entry for
            each stage under each of ``embed_dims``, ``num_layers``, ``num_heads``, ``mlp_ratios``, ``sr_ratios``,
            ``patch_sizes``, ``strides`` and ``linear`` (True averages keys and values to 7x7 in place of the spatial
            reduction).
        in_channels, out_indices, drop_rate, attn_drop_rate, drop_path_rate, with_cp, chunked, pretrained: As in
            :class:`PVT`.
        frozen_stages: -1 freezes nothing; 0 the first patch embedding; k > 0 the first k stages.
        num_classes: Makes the model a classifier: it returns logits in place of maps.
        init_cfg: As in :class:`mmengine.model.BaseModule`. Without it linear layers start from a normal of std 0.02,
            truncated at 2, and convolutions from one of std sqrt(2 / fan_out).

    Raises:
        ValueError: A setting is out of its range, or an image is smaller than the arch can reduce (29 px a side for
            the published ones, 1 px for b2_li).
        CheckpointError: As in :class:`PVT`.

    Forward takes images of shape (B, in_channels, H, W) and returns a tuple of one (B, C_i, ceil(H / stride_i),
    ceil(W / stride_i)) map for each of ``out_indices``; with ``num_classes``, (B, num_classes) logits.
    """

    family = 'PVTv2'

    def __init__(
        self,
        arch: str | dict = 'b2',
        in_channels: int = 3,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        chunked: bool = True,
        num_classes: int | None = None,
        pretrained: str | None = None,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(init_cfg, pretrained)
        self.arch = arch = check_arch(arch, ARCHS_V2)
        self.out_indices = check_out_indices(out_indices, len(arch['embed_dims']))
        self.num_stages = self.out_indices[-1] + 1
        check_in_channels(in_channels)
        check_rates(drop_rate=drop_rate, attn_drop_rate=attn_drop_rate, drop_path_rate=drop_path_rate)
        check_frozen_stages(frozen_stages, self.num_stages)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        self.min_size = stride = 1
        depths = iter(torch.linspace(0, drop_path_rate, sum(arch['num_layers']), device='cpu').tolist())
        for i in range(self.num_stages):
            self._add_stage(i, in_channels, drop_rate, attn_drop_rate, depths, chunked)
            in_channels = arch['embed_dims'][i]
            stride *= arch['strides'][i]
            if not arch['linear'][i]:
                self.min_size = max(self.min_size, stride * (arch['sr_ratios'][i] - 1) + 1)
        if num_classes is not None:
            check_num_classes(num_classes)
            if self.num_stages != len(arch['embed_dims']):
                raise ValueError(f'num_classes={num_classes} needs the last stage: out_indices={self.out_indices}')
            self.num_classes = num_classes
            self.head = nn.Linear(arch['embed_dims'][-1], num_classes)
        initialize(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
                nn.init.zeros_(module.bias)
        for module in self.frozen_modules():
            module.requires_grad_(False)

    def _add_stage(
        self, i: int, in_channels: int, drop_rate: float, attn_drop_rate: float, depths: Iterator[float], chunked: bool
    ) -> None:
        arch = {key: values[i] for key, values in self.arch.items()}
        embed_dims, num_heads = arch['embed_dims'], arch['num_heads']
        patch_embed = OverlapPatchEmbed(in_channels, embed_dims, arch['patch_sizes'], arch['strides'])
        blocks = nn.ModuleList()
        for _ in range(arch['num_layers']):
            if arch['linear']:
                attn = LinearAttention(embed_dims, num_heads, attn_drop_rate, drop_rate)
            else:
                attn = SpatialReductionAttention(embed_dims, num_heads, arch['sr_ratios'], attn_drop_rate, drop_rate)
            if chunked:
                attn.attention_fn = cpu.attention
            mlp = (cpu.ChunkedConvMlp if chunked else ConvMlp)(
                embed_dims, int(embed_dims * arch['mlp_ratios']), drop_rate, relu=arch['linear']
            )
            blocks.append(Block(embed_dims, attn, mlp, next(depths)))
        self.add_module(f'patch_embed{i + 1}', patch_embed)
        self.add_module(f'block{i + 1}', blocks)
        self.add_module(f'norm{i + 1}', nn.LayerNorm(embed_dims, eps=1e-6))

    def stage(self, i: int) -> tuple[OverlapPatchEmbed, nn.ModuleList, nn.LayerNorm]:
        """The parts of stage ``i``, counted from 0."""
        return tuple(getattr(self, f'{part}{i + 1}') for part in ('patch_embed', 'block', 'norm'))

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | Tensor:
        if min(x.shape[2:]) < self.min_size:
            raise ValueError(
                f'an image of {x.shape[2]}x{x.shape[3]} px is too small: at least {self.min_size} px a side are needed'
            )
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for i in range(self.num_stages):
            patch_embed, blocks, norm = self.stage(i)
            tokens, size = patch_embed(x)
            tokens = norm(encode(blocks, tokens, size, self.with_cp))
            x = to_map(tokens, size)
            if self.num_classes is None and i in self.out_indices:
                # mmcv's compiled ops, RoIAlign among them, read a map as NCHW whatever its strides say.
                maps.append(x.contiguous())
        return tuple(maps) if self.num_classes is None else self.head(tokens.mean(1))

    def frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        return [self.patch_embed1, *(part for i in range(self.frozen_stages) for part in self.stage(i))]
