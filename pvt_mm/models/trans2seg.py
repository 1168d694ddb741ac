"""Trans2Seg: Xie et al., IJCAI 2021, https://arxiv.org/abs/2101.08461, the head of the paper's Table 7 (arXiv).

A transformer encodes the last map of a backbone. Its decoder has a learned query for each class; how much a query
attends to each place is the class's map. Small convolutions, the same for every class, turn these maps, the encoder's
features and the backbone's first map into logits. The parameters are named as in the published checkpoints.

Imported for a segmenter only: ``import pvt_mm`` imports no mmseg.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model.weight_init import trunc_normal_
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from ..errors import SettingError
from .layers import Block, Mlp, Size, initialize, to_map, to_tokens
from .vit import Attention

# Values per group of classes in evaluation.
GROUP_VALUES = 2**22
# Classes per group in a compiled or exported graph.
GROUP_COMPILED = 16


class ClassAttention(nn.Module):
    """Attention of the class queries to the features, which returns its scores too.

    As published, the queries (B, N, D) are *reshaped* to heads (B, num_heads, N, D / num_heads), not transposed, and
    the result back: head h of class c holds values of query ``(h * N + c) // num_heads``.
    """

    def __init__(self, embed_dims: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.fc_q = nn.Linear(embed_dims, embed_dims, bias=False)
        self.fc_kv = nn.Linear(embed_dims, 2 * embed_dims, bias=False)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, query: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Attends.

        Args:
            query: (B, N, D).
            features: (B, H*W, D).

        Returns:
            The scores before the softmax, (B, N, num_heads, H*W), and the attended features, (B, N, D).
        """
        batch, num_queries, embed_dims = query.shape
        q = self.fc_q(query).reshape(batch, self.num_heads, num_queries, -1)
        k, v = self.fc_kv(features).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
        out = (scores.softmax(3) @ v).reshape(batch, num_queries, embed_dims)
        return scores.transpose(1, 2), self.proj(out)


def feed_forward(x: Tensor, norm: nn.LayerNorm, mlp: Mlp) -> Tensor:
    """A feed-forward layer after an attention whose residual is, as published, of its own output: x + x."""
    x = 2 * x
    return x + mlp(norm(x))


class DecoderLayer(nn.Module):
    """A decoder layer. Queries, features and scores have a feed-forward layer each; that of the scores is H*W wide."""

    def __init__(self, embed_dims: int, num_heads: int, num_tokens: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dims)
        self.norm1_clsembed = nn.LayerNorm(embed_dims)
        self.attn = ClassAttention(embed_dims, num_heads)
        self.norm2 = nn.LayerNorm(embed_dims)
        self.norm3 = nn.LayerNorm(embed_dims)
        self.norm4 = nn.LayerNorm(num_tokens)
        self.mlp = Mlp(embed_dims, int(embed_dims * mlp_ratio))
        self.mlp2 = Mlp(embed_dims, int(embed_dims * mlp_ratio))
        self.mlp3 = Mlp(num_tokens, 3 * num_tokens)

    def forward(self, query: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """The queries (B, N, D) and features (B, H*W, D) for the next layer."""
        _, query = self.attn(self.norm1_clsembed(query), self.norm1(features))
        return feed_forward(query, self.norm2, self.mlp), feed_forward(features, self.norm3, self.mlp2)

    def class_maps(self, query: Tensor, features: Tensor) -> Tensor:
        """The attention maps of the queries, (B, N, num_heads, H*W)."""
        scores, _ = self.attn(self.norm1_clsembed(query), self.norm1(features))
        return feed_forward(scores, self.norm4, self.mlp3)


class Transformer(nn.Module):
    """Encoder and decoder, for maps of one size."""

    def __init__(
        self,
        in_channels: int,
        num_queries: int,
        feat_size: Size,
        embed_dims: int,
        num_layers: int,
        num_heads: int,
        mlp_ratio: float,
    ):
        super().__init__()
        num_tokens = feat_size[0] * feat_size[1]
        self.hybrid_embed = nn.ModuleDict(dict(proj=nn.Linear(in_channels, embed_dims)))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_tokens, embed_dims))
        self.cls_embed = nn.Parameter(torch.zeros(1, num_queries, embed_dims))
        self.blocks_encoder = nn.ModuleList(
            Block(
                embed_dims,
                Attention(embed_dims, num_heads, qkv_bias=False),
                Mlp(embed_dims, int(embed_dims * mlp_ratio)),
                drop_path_rate=0.0,
                eps=1e-5,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embed_dims)
        self.blocks_decoder = nn.ModuleList(
            DecoderLayer(embed_dims, num_heads, num_tokens, mlp_ratio) for _ in range(num_layers)
        )
        initialize(self)
        trunc_normal_(self.cls_embed, std=0.02)
        # The published layers have parts whose output nobody reads. DDP would wait for their gradients.
        *inner, last = self.blocks_decoder
        unread = [part for layer in inner for part in (layer.norm4, layer.mlp3)]
        for part in (*unread, last.attn.proj, last.norm2, last.mlp, last.norm3, last.mlp2):
            part.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes a map and finds the classes in it.

        Args:
            x: (B, in_channels, H, W).

        Returns:
            The encoder's features (B, D, H, W) and the attention maps of the classes (B, N, num_heads, H, W).
        """
        tokens, size = to_tokens(x)
        tokens = self.hybrid_embed['proj'](tokens)
        tokens = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), tokens], dim=1) + self.pos_embed
        for block in self.blocks_encoder:
            tokens = block(tokens)
        encoded = features = self.norm(tokens)[:, 1:]
        query = self.cls_embed.repeat(x.shape[0], 1, 1)
        for layer in self.blocks_decoder[:-1]:
            query, features = layer(query, features)
            query = query + self.cls_embed
        maps = self.blocks_decoder[-1].class_maps(query, features)
        return to_map(encoded, size), maps.unflatten(3, size)


class SeparableConv(nn.Module):
    """A 3x3 convolution of each channel, then one of all channels at each place, each with norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict):
        super().__init__()
        self.block = nn.Sequential(
            OrderedDict(
                depthwise=nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False),
                bn_depth=build_norm_layer(norm_cfg, in_channels)[1],
                relu_depth=nn.ReLU(inplace=True),
                pointwise=nn.Conv2d(in_channels, out_channels, 1, bias=False),
                bn_point=build_norm_layer(norm_cfg, out_channels)[1],
                relu_point=nn.ReLU(inplace=True),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Trans2SegHead(BaseDecodeHead):
    """The head of Trans2Seg, by default its medium size, for PVT on images of 512x512 px.

    Position embedding and decoder are for one size of the last map. Images of another size run in mmseg's sliding
    windows (``model.test_cfg``), or with ``resize``, which takes the last map to that size.

    Args:
        in_channels: Channels of the backbone's first and last map.
        channels: Channels of the small convolutions.
        num_classes: Classes; each has a query.
        feat_size: Size (H, W) of the last map: that of the images divided by its stride.
        embed_dims: Width of the transformer.
        num_layers: Layers of the encoder, and of the decoder.
        num_heads: Heads of each attention, and attention maps of each class.
        mlp_ratio: Hidden width of the feed-forward layers on tokens, in ``embed_dims``.
        resize: Resize last maps of another size bilinearly to ``feat_size``.
        in_index: The two maps among the backbone's.
        norm_cfg: The norm of the convolutions; by default BN.
        kwargs: As in mmseg's :class:`BaseDecodeHead`.

    Raises:
        ValueError: ``embed_dims`` is no multiple of ``num_heads``.
        SettingError: In forward: a last map is of another size, and ``resize`` is off.

    Forward takes the backbone's maps and returns (B, num_classes, H1, W1) logits of the first map's size.
    """

    def __init__(
        self,
        in_channels: tuple[int, int] = (64, 512),
        channels: int = 64,
        *,
        num_classes: int,
        feat_size: Size = (16, 16),
        embed_dims: int = 256,
        num_layers: int = 4,
        num_heads: int = 8,
        mlp_ratio: float = 3,
        resize: bool = False,
        in_index: tuple[int, int] = (0, 3),
        norm_cfg: dict | None = None,
        **kwargs,
    ):
        norm_cfg = norm_cfg or dict(type='BN')
        # named with its library: mmdet has another loss of this name, which its scope would take
        loss = dict(type='mmseg.CrossEntropyLoss')
        kwargs = dict(dropout_ratio=0.0, align_corners=True, loss_decode=loss, init_cfg=None) | kwargs
        super().__init__(
            in_channels,
            channels,
            num_classes=num_classes,
            in_index=in_index,
            input_transform='multiple_select',
            norm_cfg=norm_cfg,
            **kwargs,
        )
        if embed_dims % num_heads:
            raise ValueError(f'embed_dims={embed_dims} must be a multiple of num_heads={num_heads}')
        del self.conv_seg  # pred takes its place
        self.feat_size = tuple(feat_size)
        self.resize = resize
        vit = Transformer(
            in_channels[1], self.out_channels, self.feat_size, embed_dims, num_layers, num_heads, mlp_ratio
        )
        self.transformer = nn.ModuleDict(dict(vit=vit))
        self.conv_c1 = ConvModule(in_channels[0], channels, 1, norm_cfg=norm_cfg)
        self.lay1 = SeparableConv(embed_dims + num_heads, channels, norm_cfg)
        self.lay2 = SeparableConv(channels, channels, norm_cfg)
        self.lay3 = SeparableConv(channels, channels, norm_cfg)
        self.pred = nn.Conv2d(channels, 1, 1)

    def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
        c1, c4 = self._transform_inputs(inputs)
        features, maps = self.transformer['vit'](self._fit(c4))
        c1 = self.conv_c1(c1)
        if self.training:  # the norms need all classes at once
            group = maps.shape[1]
        elif torch.compiler.is_compiling():  # a graph has a number of groups that no size changes
            group = GROUP_COMPILED
        else:  # a fraction of the memory
            group = max(1, GROUP_VALUES // c1.numel())
        return torch.cat([self._decode(features, part, c1) for part in maps.split(group, dim=1)], dim=1)

    def _fit(self, x: Tensor) -> Tensor:
        """A map of the size that the transformer is for."""
        if self.resize and torch.compiler.is_compiling():  # a graph must not compare sizes
            return F.interpolate(x, self.feat_size, mode='bilinear', align_corners=self.align_corners)
        if x.shape[2:] == self.feat_size:
            return x
        if not self.resize:
            own, other = ('x'.join(map(str, size)) for size in (self.feat_size, x.shape[2:]))
            raise SettingError(
                f'Trans2SegHead is for last maps of {own}, feat_size, and got one of {other}: set '
                "model.decode_head.resize=True, or test in windows of that size, model.test_cfg.mode='slide'"
            )
        return F.interpolate(x, self.feat_size, mode='bilinear', align_corners=self.align_corners)

    def _decode(self, features: Tensor, maps: Tensor, c1: Tensor) -> Tensor:
        """The logits of some classes.

        Args:
            features: The encoder's, (B, D, H, W).
            maps: The attention maps of the classes, (B, N, num_heads, H, W).
            c1: The first map, (B, channels, H1, W1).

        Returns:
            (B, N, H1, W1).
        """
        num_classes = maps.shape[1]
        x = torch.cat([features.repeat_interleave(num_classes, 0), maps.flatten(0, 1)], dim=1)
        x = self.lay2(self.lay1(x))
        x = F.interpolate(x, c1.shape[2:], mode='bilinear', align_corners=True)
        x = x.unflatten(0, (-1, num_classes)) + c1[:, None]
        return self.pred(self.lay3(x.flatten(0, 1))).view(-1, num_classes, *c1.shape[2:])
