"""What the backbones share."""

import torch
import torch.nn.functional as F
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Size = tuple[int, int]  # (height, width)


def to_map(tokens: Tensor, size: Size) -> Tensor:
    """(B, H*W, C) tokens as a (B, C, H, W) map in channels-last memory."""
    return tokens.unflatten(1, size).permute(0, 3, 1, 2)


def to_tokens(x: Tensor) -> tuple[Tensor, Size]:
    """A (B, C, H, W) map as (B, H*W, C) tokens, and its size (H, W)."""
    return x.flatten(2).transpose(1, 2), x.shape[2:]


def resize_position(pos_embed: Tensor, source: Size, target: Size) -> Tensor:
    """Resizes a position embedding bilinearly (Section 4.2).

    Args:
        pos_embed: (1, H*W, C), or (1, 1 + H*W, C) with the row of the class token first, which is kept.
        source: Its grid (H, W).
        target: The grid (H', W') to resize to.

    Returns:
        (1, H'*W', C), or (1, 1 + H'*W', C).
    """
    # An exported or traced model runs at every size: it must not compare sizes, and always resizes.
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if not recorded and source == target:
        return pos_embed
    num_positions = source[0] * source[1]
    extra, grid = pos_embed.split([pos_embed.shape[1] - num_positions, num_positions], dim=1)
    grid = F.interpolate(to_map(grid, source), size=target, mode='bilinear', align_corners=False)
    return torch.cat([extra, to_tokens(grid)[0]], dim=1)


def average_pool(x: Tensor, size: Size) -> Tensor:
    """:func:`torch.nn.functional.adaptive_avg_pool2d`, right in ONNX too, where it comes out wrong at other sizes.

    Args:
        x: (B, C, H, W).
        size: (H', W').

    Returns:
        (B, C, H', W').
    """
    if not torch.compiler.is_compiling():
        return F.adaptive_avg_pool2d(x, size)
    rows, columns = (_averages(*lengths, x) for lengths in zip(x.shape[2:], size))
    return rows @ x @ columns.T


def _averages(length: int, number: int, like: Tensor) -> Tensor:
    """Adaptive average pooling of ``length`` values to ``number``, as a (number, length) matrix."""
    first = torch.arange(number, device=like.device)[:, None] * length
    position = torch.arange(length, device=like.device)
    inside = (position >= first // number) & (position < (first + length + number - 1) // number)
    return (inside / inside.sum(1, keepdim=True)).to(like.dtype)


class Mlp(nn.Module):
    """The feed-forward layer: linear, GELU, linear."""

    def __init__(self, embed_dims: int, hidden_dims: int, drop_rate: float = 0.0):
        super().__init__()
        self.fc1 = nn.Linear(embed_dims, hidden_dims)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dims, embed_dims)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor, *size: Size) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))


class DepthwiseConv(nn.Module):
    """A 3x3 convolution of each channel, on tokens (B, H*W, C) of a map of ``size``."""

    def __init__(self, channels: int):
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        return to_tokens(self.dwconv(to_map(x, size)))[0]


class ConvMlp(Mlp):
    """The feed-forward layer of PVTv2: linear, with ``relu`` a ReLU, depth-wise 3x3 convolution, GELU, linear."""

    def __init__(self, embed_dims: int, hidden_dims: int, drop_rate: float = 0.0, relu: bool = False):
        super().__init__(embed_dims, hidden_dims, drop_rate)
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.dwconv = DepthwiseConv(hidden_dims)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        x = self.dwconv(self.relu(self.fc1(x)), size)
        return self.drop(self.fc2(self.drop(self.act(x))))


class Block(nn.Module):
    """An encoder layer: attention, then feed-forward. Each is normed first and added to its input (Figure 3)."""

    def __init__(self, embed_dims: int, attn: nn.Module, mlp: Mlp, drop_path_rate: float, eps: float = 1e-6):
        from mmcv.cnn.bricks import DropPath  # here, as mmcv imports OpenCV

        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dims, eps=eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(embed_dims, eps=eps)
        self.mlp = mlp
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, *size: Size, **mask: Tensor | None) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), *size, **mask))
        return x + self.drop_path(self.mlp(self.norm2(x), *size))


def encode(blocks: nn.ModuleList, tokens: Tensor, size: Size, with_cp: bool, attn_mask: Tensor | None = None) -> Tensor:
    """Tokens (B, N, C) of a map of ``size`` after a stage. ``with_cp`` recomputes each layer in the backward pass.

    ``attn_mask`` is False for the keys that are left out, (B, 1, 1, M).
    """
    for block in blocks:
        if with_cp and tokens.requires_grad:
            tokens = checkpoint(block, tokens, size, attn_mask=attn_mask, use_reentrant=False)
        else:
            tokens = block(tokens, size, attn_mask=attn_mask)
    return tokens


def initialize(model: nn.Module) -> None:
    """Starts weights, class token and position embeddings from a normal of std 0.02, truncated at 2, biases at 0."""
    for name, parameter in model.named_parameters():
        if 'pos_embed' in name or name == 'cls_token':
            trunc_normal_(parameter, std=0.02)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
