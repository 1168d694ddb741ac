"""The implementations of PVT-Small that are set beside ours, with the same weights, and ResNet50 for scale; of other
sizes and of PVTv2 mmdet's ports, with weights of their own.

Each builder returns a model that takes (B, 3, H, W) images and returns its maps.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from mmdet.models.backbones import PyramidVisionTransformer, PyramidVisionTransformerV2, ResNet
from torch import Tensor, nn

from pvt_mm.models import PVT, PVTv2
from pvt_mm.models.archs import ARCHS, ARCHS_V2
from pvt_mm.models.pvt import SpatialReductionAttention
from pvt_mm.weights.formats import from_published


def weights() -> dict[str, Tensor]:
    """A classifier's, under their published names."""
    torch.manual_seed(0)
    return PVT('small', num_classes=1000).state_dict()


def ours(**kwargs) -> PVT:
    model = PVT('small', **kwargs)
    model.load_state_dict(weights())
    return model


def ours_with_cp() -> PVT:
    return ours(with_cp=True)


class _Float32(nn.Module):
    """A model that stays in float32 where autocast is on."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(images.device.type, enabled=False):
            return self.model(images)


def ours_in_float32() -> nn.Module:
    return _Float32(ours())


def textbook_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0
) -> Tensor:
    """Attention as the paper writes it (Equation 4), with all its weights in memory. Shapes: (B, num_heads, N, C).

    ``attn_mask`` is False for the keys that are left out, (B, 1, 1, M).
    """
    scores = q / q.shape[3] ** 0.5 @ k.transpose(2, 3)  # scaling q takes far fewer values than q @ k
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    return F.dropout(scores.softmax(3), dropout_p) @ v


def ours_with_textbook_attention() -> PVT:
    model = ours()
    for module in model.modules():
        if isinstance(module, SpatialReductionAttention):
            module.attention_fn = textbook_attention
    return model


def mmdets_port() -> nn.Module:
    """What mmdet 3.3.0 ships."""
    model = PyramidVisionTransformer(drop_path_rate=0.0)
    model.load_state_dict(from_published(weights(), 'mmdet')[0])
    return model


def mmdets_port_with_plain_sdpa() -> nn.Module:
    """The same, not asked for the attention weights, so that torch takes its fused attention."""
    model = mmdets_port()
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.forward = partial(module.forward, need_weights=False)
    return model


class _HuggingFace(nn.Module):
    """``PvtModel`` of transformers; it always computes the class token and its last norm too."""

    def __init__(self):
        super().__init__()
        from transformers import PvtConfig, PvtModel

        self.pvt = PvtModel(PvtConfig(depths=[3, 4, 6, 3], drop_path_rate=0.0))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.pvt(images).last_hidden_state,)


def hugging_faces() -> nn.Module:
    model = _HuggingFace()
    dense = {key: value for key, value in weights().items() if not key.startswith('head.')}
    model.load_state_dict(from_published(dense, 'huggingface')[0])
    return model


def resnet50() -> nn.Module:
    """As mmdet's detectors use it, its norms in evaluation mode, but with no stage frozen."""
    return ResNet(depth=50)


OURS = 'pvt_mm'
PEERS = {
    OURS: ours,
    'pvt_mm, with_cp': ours_with_cp,
    'pvt_mm, float32': ours_in_float32,
    'pvt_mm, textbook attention': ours_with_textbook_attention,
    "mmdet's port": mmdets_port,
    "mmdet's port, plain SDPA": mmdets_port_with_plain_sdpa,
    'transformers': hugging_faces,
    'ResNet50': resnet50,
}


def pvt_peers(arch: str) -> dict[str, Callable[[], nn.Module]]:
    """The builders for another size of PVT."""
    return {
        OURS: partial(PVT, arch),
        'pvt_mm, with_cp': partial(PVT, arch, with_cp=True),
        "mmdet's port": partial(PyramidVisionTransformer, num_layers=ARCHS[arch]['num_layers'], drop_path_rate=0.0),
        'ResNet50': resnet50,
    }


def pvt_v2_peers(arch: str) -> dict[str, Callable[[], nn.Module]]:
    """The builders for a PVTv2; mmdet's port has no linear attention."""
    settings = ARCHS_V2[arch]
    port = partial(
        PyramidVisionTransformerV2,
        embed_dims=settings['embed_dims'][0],
        num_layers=settings['num_layers'],
        mlp_ratios=settings['mlp_ratios'],
        drop_path_rate=0.0,
    )
    return {
        OURS: partial(PVTv2, arch),
        'pvt_mm, with_cp': partial(PVTv2, arch, with_cp=True),
        **({} if any(settings['linear']) else {"mmdet's port": port}),
        'ResNet50': resnet50,
    }


# By the arch that is measured.
FAMILIES = {
    **{arch: PEERS if arch == 'small' else pvt_peers(arch) for arch in ARCHS},
    **{arch: pvt_v2_peers(arch) for arch in ARCHS_V2},
}


def peers_of(work: str, precision: str, arch: str = 'small') -> list[str]:
    """The names of those that differ from ours at this work, 'forward' or 'training', in this precision."""
    same = {'pvt_mm, with_cp': work == 'forward', 'pvt_mm, float32': precision == 'float32'}
    return [name for name in FAMILIES[arch] if not same.get(name)]
