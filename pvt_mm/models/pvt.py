"""The Pyramid Vision Transformer (PVT): Wang et al., ICCV 2021, https://arxiv.org/abs/2102.12122.

Inside a stage the features are tokens of shape (batch, height * width, channels). Seen as a map they are a
(batch, channels, height, width) tensor in channels-last memory: going from one to the other copies nothing. The parameters
are named as in the published checkpoints.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from mmengine.model.weight_init import trunc_normal_
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..weights.loading import LoadReport, PretrainedModule

# The settings of the published sizes (the paper's supplementary material), one entry a stage.
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


# Where a CPU works piece by piece, a piece makes so many values: they stay in its cache.
_CACHED_VALUES = 2**20


def in_pieces(x: Tensor) -> bool:
    """Whether to work on ``x`` piece by piece: on a CPU, but not where a compiler would write out all the pieces."""
    return x.is_cpu and not torch.compiler.is_compiling() and not torch.jit.is_tracing()


def to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H*W, C) tokens as a (B, C, H, W) map in channels-last memory."""
    return tokens.unflatten(1, size).permute(0, 3, 1, 2)


def to_tokens(x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """A (B, C, H, W) map as (B, H*W, C) tokens, and its size (H, W)."""
    return x.flatten(2).transpose(1, 2), x.shape[2:]


def resize_position(pos_embed: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Resizes a position embedding bilinearly (Section 4.2).

    Args:
        pos_embed: (1, H*W, C), or (1, 1 + H*W, C) where the first row is the class token's, which stays.
        source: its grid (H, W).
        target: the grid (H', W') to resize to.

    Returns:
        (1, H'*W', C), or (1, 1 + H'*W', C).
    """
    if source == target:
        return pos_embed
    num_extra = pos_embed.shape[1] - source[0] * source[1]
    extra, grid = pos_embed.split([num_extra, source[0] * source[1]], dim=1)
    grid = F.interpolate(to_map(grid, source), size=target, mode='bilinear', align_corners=False)
    return torch.cat([extra, to_tokens(grid)[0]], dim=1)


def adapt_position(
    state_dict: dict[str, Tensor], key: str, own: Tensor, grid: tuple[int, int], report: LoadReport, pretrained: bool
) -> None:
    """Resizes the position embedding under ``key`` to a model's ``own`` of ``grid`` (H, W), in place.

    An embedding does not tell its grid. One that has as many positions as ``own`` is taken to have its grid, or, if
    ``pretrained``, to be square where it can be; one that has another number must be square.
    """
    if key not in state_dict or state_dict[key].shape[::2] != own.shape[::2]:
        return
    if state_dict[key].shape == own.shape and not pretrained:
        return
    num_positions = state_dict[key].shape[1] - (own.shape[1] - grid[0] * grid[1])
    side = math.isqrt(max(num_positions, 0))
    if side > 0 and side * side == num_positions and (side, side) != grid:
        state_dict[key] = resize_position(state_dict[key], (side, side), grid)
        report.resized.append(f'{key} {side}x{side} to {grid[0]}x{grid[1]}')


def textbook_attention(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0) -> Tensor:
    """Attention as the paper writes it (Equation 4).

    Args:
        q: Queries, (B, num_heads, N, C).
        k: Keys, (B, num_heads, M, C).
        v: Values, (B, num_heads, M, C).
        dropout_p: Dropout of the attention weights.

    Returns:
        (B, num_heads, N, C).
    """
    weights = (q / math.sqrt(q.shape[3]) @ k.transpose(2, 3)).softmax(3)  # scaling q takes far fewer values than q @ k
    return F.dropout(weights, dropout_p) @ v


def fused_attention(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0) -> Tensor:
    """What :func:`textbook_attention` computes, without all its N x M weights in memory."""
    if q.dtype != torch.bfloat16 or torch.is_grad_enabled() or not in_pieces(q):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p)
    # torch 2.13's CPU kernel is no faster in bfloat16 than in float32; matrix products are, where a CPU has them.
    num_queries = max(1, _CACHED_VALUES // (k.shape[1] * k.shape[2]))
    out = torch.empty_like(q)
    with torch.autocast('cpu', enabled=False):  # which would take the weights to float32
        for i in range(len(q)):
            keys, values = k[i : i + 1].contiguous(), v[i : i + 1].contiguous()
            for piece, place in zip(q[i : i + 1].split(num_queries, 2), out[i : i + 1].split(num_queries, 2)):
                place.copy_(textbook_attention(piece, keys, values, dropout_p))
    return out


class SpatialReductionAttention(nn.Module):
    """Multi-head attention whose keys and values come from a map reduced ``sr_ratio`` times a side
    (Section 3.3, Equations 1 to 4)."""

    attend = staticmethod(fused_attention)

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

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        source = x
        if self.sr_ratio > 1:
            source = self.norm(to_tokens(self.sr(to_map(x, size)))[0])
        q = self.q(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.kv(source).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        out = self.attend(q, k, v, dropout_p=self.attn_drop_rate if self.training else 0.0)
        return self.proj_drop(self.proj(out.transpose(1, 2).flatten(2)))


class Mlp(nn.Module):
    """The feed-forward layer: linear, GELU, linear.

    Its hidden values are by far the most that a PVT makes. A CPU makes them piece by piece, and again in the backward
    pass: it takes no more time than to hold them all in memory, and far less of that.
    """

    def __init__(self, embed_dims: int, hidden_dims: int, drop_rate: float):
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, hidden_dims)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dims, embed_dims)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        num_tokens = _CACHED_VALUES // self.fc1.out_features
        if not in_pieces(x) or x.shape[:-1].numel() <= num_tokens:
            return self._forward(x)
        forward = self._forward
        if torch.is_grad_enabled():
            forward = partial(checkpoint, self._forward, use_reentrant=False)
        return torch.cat([forward(piece) for piece in x.flatten(0, -2).split(num_tokens)]).view_as(x)

    def _forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class Block(nn.Module):
    """An encoder layer: attention, then feed-forward, each normed first and added to its input."""

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        mlp_ratio: float,
        sr_ratio: int,
        drop_rate: float,
        attn_drop_rate: float,
        drop_path_rate: float,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dims, eps=1e-6)
        self.attn = SpatialReductionAttention(embed_dims, num_heads, sr_ratio, attn_drop_rate, drop_rate)
        self.norm2 = nn.LayerNorm(embed_dims, eps=1e-6)
        self.mlp = Mlp(embed_dims, int(embed_dims * mlp_ratio), drop_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Splits a map into disjoint patches and projects each to a token (Section 3.2)."""

    def __init__(self, in_channels: int, embed_dims: int, patch_size: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dims, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dims, eps=1e-5)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        tokens, size = to_tokens(self.proj(x))
        return self.norm(tokens), size


@MODELS.register_module()
class PVT(PretrainedModule):
    """Pyramid Vision Transformer: four stages of encoder layers on maps of stride 4, 8, 16 and 32 (Section 3).

    Args:
        arch: A published size, 'tiny', 'small', 'medium' or 'large', or a dict that defines any other: a
            sequence with an entry a stage under each of ``embed_dims``, ``num_layers``, ``num_heads``,
            ``mlp_ratios``, ``sr_ratios`` and ``patch_sizes``.
        img_size: Image size in pixels, one number or (height, width), that the position embeddings are
            for. Images of other sizes get them resized.
        in_channels: Channels of the image.
        out_indices: The stages, counted from 0, whose maps are returned. No stage past the last of them
            is built.
        drop_rate: Dropout after the position embedding, the attention's projection and in the
            feed-forward layers.
        attn_drop_rate: Dropout of the attention weights.
        drop_path_rate: Stochastic depth of the last layer; it rises linearly from 0 over all layers of
            the arch.
        frozen_stages: -1 freezes nothing; 0 the first patch embedding; k > 0 also the first k stages, with
            their patch and position embeddings. What is frozen stays in evaluation mode.
        with_cp: Recompute each layer in the backward pass instead of keeping its activations.
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

    def __init__(
        self,
        arch: str | dict = 'small',
        img_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        num_classes: int | None = None,
        pretrained: str | None = None,
        init_cfg: dict | list | None = None,
    ):
        if pretrained is not None:
            if init_cfg is not None:
                raise ValueError(f'pretrained={pretrained!r} and init_cfg={init_cfg!r} exclude each other: give one')
            init_cfg = dict(type='Pretrained', checkpoint=pretrained)
        super().__init__(init_cfg)
        self.arch = arch = _check_arch(arch)
        num_stages = len(arch['embed_dims'])
        self.img_size = _check_img_size(img_size)
        self.out_indices = _check_out_indices(out_indices, num_stages)
        if not isinstance(in_channels, int) or in_channels < 1:
            raise ValueError(f'in_channels={in_channels!r} must be a whole number from 1')
        for name, rate in dict(
            drop_rate=drop_rate, attn_drop_rate=attn_drop_rate, drop_path_rate=drop_path_rate
        ).items():
            if not isinstance(rate, (int, float)) or not 0 <= rate < 1:
                raise ValueError(f'{name}={rate!r} must be a number from 0 and below 1')
        self.num_stages = self.out_indices[-1] + 1
        if frozen_stages not in range(-1, self.num_stages + 1):
            raise ValueError(
                f'frozen_stages={frozen_stages} must be from -1 to {self.num_stages}, '
                'the number of stages that out_indices asks for'
            )
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        self.num_classes = num_classes
        if num_classes is not None:
            if not isinstance(num_classes, int) or num_classes < 1:
                raise ValueError(f'num_classes={num_classes!r} must be a whole number from 1')
            if self.num_stages != num_stages or arch['sr_ratios'][-1] != 1:
                raise ValueError(
                    f'num_classes={num_classes} needs the last stage, without spatial reduction: '
                    f'out_indices={out_indices}, sr_ratios={arch["sr_ratios"]}'
                )

        depth = sum(arch['num_layers'])
        drop_path_rates = iter(torch.linspace(0, drop_path_rate, depth, device='cpu').tolist())
        stride = 1
        self.min_size = 1
        self.grids = []  # the size (H, W) that each stage's position embedding is for
        for i in range(self.num_stages):
            embed_dims = arch['embed_dims'][i]
            stride *= arch['patch_sizes'][i]
            self.min_size = max(self.min_size, stride * arch['sr_ratios'][i])
            self.grids.append(tuple(side // stride for side in self.img_size))
            num_positions = self.grids[i][0] * self.grids[i][1]
            if i == num_stages - 1:
                num_positions += 1  # the class token's, first; unused without a classifier
            self.add_module(f'patch_embed{i + 1}', PatchEmbed(in_channels, embed_dims, arch['patch_sizes'][i]))
            self.register_parameter(f'pos_embed{i + 1}', nn.Parameter(torch.zeros(1, num_positions, embed_dims)))
            self.add_module(f'pos_drop{i + 1}', nn.Dropout(drop_rate))
            self.add_module(
                f'block{i + 1}',
                nn.ModuleList(
                    Block(
                        embed_dims,
                        arch['num_heads'][i],
                        arch['mlp_ratios'][i],
                        arch['sr_ratios'][i],
                        drop_rate,
                        attn_drop_rate,
                        next(drop_path_rates),
                    )
                    for _ in range(arch['num_layers'][i])
                ),
            )
            in_channels = embed_dims
        if min(self.img_size) < self.min_size:
            raise ValueError(f'img_size={img_size} must be at least {self.min_size} px a side')
        if num_classes is not None:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
            self.norm = nn.LayerNorm(embed_dims, eps=1e-6)
            self.head = nn.Linear(embed_dims, num_classes)
        self._reset_parameters()
        self._freeze()

    def _reset_parameters(self) -> None:
        for name, parameter in self.named_parameters():
            if 'pos_embed' in name or name == 'cls_token':
                trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def adapt_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, report: LoadReport, pretrained: bool = False
    ) -> None:
        """Makes the weights of a PVT fit this one: resizes position embeddings, takes out the classifier's.

        Args:
            state_dict: Weights by name, changed in place.
            prefix: What the names of this module's weights begin with.
            report: Gets the names of what was changed.
            pretrained: Whether the weights were learned elsewhere, on square images.
        """
        for i, grid in enumerate(self.grids):
            name = f'pos_embed{i + 1}'
            adapt_position(state_dict, prefix + name, getattr(self, name), grid, report, pretrained)
        if self.num_classes is None:
            for key in ('cls_token', 'norm.weight', 'norm.bias', 'head.weight', 'head.bias'):
                if state_dict.pop(prefix + key, None) is not None:
                    report.classifier.append(prefix + key)

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | Tensor:
        if min(x.shape[2:]) < self.min_size:
            raise ValueError(
                f'an image of {x.shape[2]}x{x.shape[3]} px is too small: at least {self.min_size} px a side are needed'
            )
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for i in range(self.num_stages):
            tokens, size = getattr(self, f'patch_embed{i + 1}')(x)
            position = resize_position(getattr(self, f'pos_embed{i + 1}'), self.grids[i], size)
            with_cls_token = self.num_classes is not None and i == self.num_stages - 1
            if with_cls_token:
                tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
            else:
                position = position[:, -tokens.shape[1] :]
            tokens = getattr(self, f'pos_drop{i + 1}')(tokens + position)
            for block in getattr(self, f'block{i + 1}'):
                if self.with_cp and tokens.requires_grad:
                    tokens = checkpoint(block, tokens, size, use_reentrant=False)
                else:
                    tokens = block(tokens, size)
            if with_cls_token:
                return self.head(self.norm(tokens[:, 0]))
            x = to_map(tokens, size)
            if i in self.out_indices:
                # mmcv's compiled ops, RoIAlign among them, read a map as NCHW whatever its strides say.
                maps.append(x.contiguous())
        return tuple(maps)

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        modules = [self.patch_embed1]
        for i in range(self.frozen_stages):
            modules += [getattr(self, f'{part}{i + 1}') for part in ('patch_embed', 'pos_drop', 'block')]
        return modules

    def _freeze(self) -> None:
        for module in self._frozen_modules():
            module.requires_grad_(False)
        for i in range(self.frozen_stages):
            getattr(self, f'pos_embed{i + 1}').requires_grad_(False)

    def train(self, mode: bool = True) -> 'PVT':
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self


def _check_arch(arch: str | dict) -> dict[str, tuple]:
    """The settings behind ``arch``, checked."""
    if not isinstance(arch, dict):
        if arch not in ARCHS:
            raise ValueError(f'arch={arch!r} is none of {", ".join(ARCHS)}, nor a dict')
        return ARCHS[arch]
    if set(arch) != set(ARCHS['small']):
        missing, unknown = set(ARCHS['small']) - set(arch), set(arch) - set(ARCHS['small'])
        raise ValueError(f'arch lacks {sorted(missing)} and has unknown {sorted(unknown)}')
    for key, values in arch.items():
        if not isinstance(values, (list, tuple)) or len(values) != len(arch['embed_dims']) or not values:
            raise ValueError(f'arch: {key}={values!r} must be a sequence with an entry a stage, as many as all others')
        if not all(isinstance(value, (int, float)) and value > 0 for value in values):
            raise ValueError(f'arch: {key}={values!r} must be positive numbers')
    if any(embed_dims % num_heads for embed_dims, num_heads in zip(arch['embed_dims'], arch['num_heads'])):
        raise ValueError(f'arch: embed_dims={arch["embed_dims"]} must be multiples of num_heads={arch["num_heads"]}')
    return {key: tuple(values) for key, values in arch.items()}


def _check_img_size(img_size: int | tuple[int, int]) -> tuple[int, int]:
    sides = (img_size, img_size) if isinstance(img_size, int) else img_size
    if not isinstance(sides, (list, tuple)) or len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        raise ValueError(f'img_size={img_size!r} must be a number of pixels or (height, width)')
    return tuple(sides)


def _check_out_indices(out_indices: tuple[int, ...], num_stages: int) -> tuple[int, ...]:
    if (
        not isinstance(out_indices, (list, tuple))
        or not out_indices
        or sorted(set(out_indices)) != list(out_indices)
        or not set(out_indices) <= set(range(num_stages))
    ):
        raise ValueError(f'out_indices={out_indices!r} must be rising numbers from 0 to {num_stages - 1}')
    return tuple(out_indices)
