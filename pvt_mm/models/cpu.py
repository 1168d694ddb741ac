"""What a CPU computes chunk by chunk, in less memory and no more time. A GPU and compiled code do not."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .layers import ConvMlp, Mlp, Size

# Values per chunk on a CPU, chosen so that a chunk fits in cache.
CHUNK_VALUES = 2**20


def _chunks(x: Tensor) -> bool:
    """Whether to work on ``x`` in chunks: on a CPU, but not where a compiler would write out all the chunks."""
    return x.is_cpu and not torch.compiler.is_compiling() and not torch.jit.is_tracing()


def attention(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0) -> Tensor:
    """:func:`torch.nn.functional.scaled_dot_product_attention`, on a CPU in bfloat16 as matrix products.

    torch 2.13's CPU kernel is no faster in bfloat16 than in float32. Matrix products are, where a CPU has them.

    Args:
        q: Queries, (B, num_heads, N, C).
        k: Keys, (B, num_heads, M, C).
        v: Values, (B, num_heads, M, C).
        attn_mask: False for the keys that are left out, (B, 1, 1, M).
        dropout_p: Dropout rate of the attention weights.

    Returns:
        (B, num_heads, N, C).
    """
    if q.dtype != torch.bfloat16 or torch.is_grad_enabled() or not _chunks(q):
        return F.scaled_dot_product_attention(q, k, v, attn_mask, dropout_p)
    num_queries = max(1, CHUNK_VALUES // (k.shape[1] * k.shape[2]))
    out = torch.empty_like(q)
    with torch.autocast('cpu', enabled=False):  # which would take the weights to float32
        for i in range(len(q)):
            keys, values = k[i : i + 1].contiguous(), v[i : i + 1].contiguous()
            for chunk, place in zip(q[i : i + 1].split(num_queries, 2), out[i : i + 1].split(num_queries, 2)):
                scores = chunk / chunk.shape[3] ** 0.5 @ keys.transpose(2, 3)
                if attn_mask is not None:
                    scores.masked_fill_(~attn_mask[i], -torch.inf)
                place.copy_(F.dropout(scores.softmax(3), dropout_p) @ values)
    return out


class ChunkedMlp(Mlp):
    """The feed-forward layer, chunk by chunk on a CPU.

    Its hidden values are by far the most that a PVT makes. A CPU computes them in chunks, and again in the backward
    pass, which takes no more time than keeping them all in memory.
    """

    def forward(self, x: Tensor, *size: Size) -> Tensor:
        num_tokens = CHUNK_VALUES // self.fc1.out_features
        if not _chunks(x) or x.shape[:-1].numel() <= num_tokens:
            return super().forward(x)
        forward = super().forward
        if torch.is_grad_enabled():
            forward = partial(checkpoint, forward, use_reentrant=False)
        return torch.cat([forward(chunk) for chunk in x.flatten(0, -2).split(num_tokens)]).view_as(x)


class ChunkedConvMlp(ConvMlp):
    """PVTv2's feed-forward layer, some rows of the map at a time on a CPU; as :class:`ChunkedMlp`."""

    def forward(self, x: Tensor, size: Size) -> Tensor:
        height, width = size
        num_rows = max(1, CHUNK_VALUES // (self.fc1.out_features * width))
        if not _chunks(x) or x.shape[0] * height <= num_rows:
            return super().forward(x, size)
        forward = self._rows
        if torch.is_grad_enabled():
            forward = partial(checkpoint, forward, use_reentrant=False)
        images = x.unflatten(1, size).unbind(0)
        chunks = [forward(image, first, first + num_rows) for image in images for first in range(0, height, num_rows)]
        return torch.cat(chunks).view_as(x)

    def _rows(self, image: Tensor, first: int, end: int) -> Tensor:
        """The result for the rows from ``first`` to before ``end`` of a map (H, W, C), as (rows * W, C).

        The convolution sees a row more on both sides, which is zero only beyond the map.
        """
        above, (height, width) = min(first, 1), image.shape[:2]
        rows = image[first - above : end + 1]
        hidden = self.dwconv(self.relu(self.fc1(rows.reshape(1, -1, image.shape[2]))), rows.shape[:2])
        own = hidden[0, above * width : (above + min(end, height) - first) * width]
        return self.drop(self.fc2(self.drop(self.act(own))))
