import logging

import pytest
import torch
from mmdet.models.backbones import PyramidVisionTransformer
from mmdet.models.backbones.pvt import pvt_convert
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import get_state_dict
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pvt_mm.errors import CheckpointError
from pvt_mm.models import PVT
from pvt_mm.weights.formats import (
    FORMATS,
    convert_backbones,
    find_backbones,
    format_of,
    from_published,
    strip_wrappers,
    to_published,
)
from tests.parity import formula_weights, relative_error

ARCHS = {
    'small': dict(embed_dims=(8, 16, 40, 64), num_layers=(1, 2, 1, 2)),
    'wide': dict(embed_dims=(16, 32, 80, 128), num_layers=(2, 1, 3, 1)),
}
SIZES = [('small', 64), ('wide', 96)]


def arch_of(name: str) -> dict:
    return dict(
        ARCHS[name], num_heads=(1, 2, 5, 8), mlp_ratios=(8, 8, 4, 4), sr_ratios=(8, 4, 2, 1), patch_sizes=(4, 2, 2, 2)
    )


def published(name: str = 'small', img_size: int | tuple[int, int] = 64, num_classes: int | None = 7) -> dict:
    """Weights under their published names."""
    return formula_weights(PVT(arch_of(name), img_size, num_classes=num_classes))


def ours(weights: dict, name: str, img_size: int, num_classes: int | None = None) -> nn.Module:
    model = PVT(arch_of(name), img_size, num_classes=num_classes)
    own = model.state_dict()
    model.load_state_dict({key: value for key, value in weights.items() if key in own})
    return model.eval()


def mmdets(name: str, img_size: int) -> nn.Module:
    dims = ARCHS[name]['embed_dims']
    model = PyramidVisionTransformer(img_size, embed_dims=dims[0], num_layers=ARCHS[name]['num_layers'])
    return model.eval()


def hugging_faces(name: str, img_size: int) -> nn.Module:
    transformers = pytest.importorskip('transformers')
    dims, depths = ARCHS[name].values()
    config = transformers.PvtConfig(
        image_size=img_size,
        hidden_sizes=dims,
        depths=depths,
        mlp_ratios=[8, 8, 4, 4],
        num_labels=7,
    )
    return transformers.PvtForImageClassification(config).eval()


def with_eps(model: nn.Module, eps: float) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = eps
    return model


def errors(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> list[float]:
    return [relative_error(mine, other.numpy()) for mine, other in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize('name, img_size', SIZES)
@torch.no_grad()
def test_mmdets_port_computes_what_our_weights_compute(name, img_size):
    weights = published(name, img_size)
    theirs = mmdets(name, img_size)
    converted, lost = from_published(weights, 'mmdet')
    theirs.load_state_dict(converted)
    assert lost == ['cls_token', 'norm.weight', 'norm.bias', 'head.weight', 'head.bias', 'pos_embed4[:, 0]']
    mine = ours(weights, name, img_size)
    for image in (torch.randn(2, 3, img_size, img_size), torch.randn(1, 3, 64, 128)):
        assert max(errors(mine(image), theirs(image))) < 1e-4
    with_eps(mine, 1e-6)
    assert max(errors(mine(image), theirs(image))) < 1e-6


@pytest.mark.parametrize('name, img_size', SIZES)
@torch.no_grad()
def test_ours_computes_what_mmdets_weights_compute(name, img_size):
    theirs = mmdets(name, img_size)
    theirs.load_state_dict(formula_weights(theirs))
    weights, lost = to_published(theirs.state_dict())
    assert not lost
    mine = PVT(arch_of(name), img_size).eval()
    mine.load_state_dict(weights)
    assert mine.pos_embed4[:, 0].eq(0).all()
    image = torch.randn(2, 3, img_size, img_size)
    assert max(errors(mine(image), theirs(image))) < 1e-4
    assert max(errors(with_eps(mine, 1e-6)(image), theirs(image))) < 1e-6


@pytest.mark.parametrize('name, img_size', SIZES)
@torch.no_grad()
def test_transformers_classifier_computes_what_our_weights_compute(name, img_size):
    weights = published(name, img_size)
    theirs = hugging_faces(name, img_size)
    converted, lost = from_published(weights, 'huggingface')
    theirs.load_state_dict(converted)
    assert not lost
    image = torch.randn(2, 3, img_size, img_size)  # transformers 5.24 fails at any size but the model's own
    mine = ours(weights, name, img_size, num_classes=7)
    assert max(errors([mine(image)], [theirs(image).logits])) < 1e-4
    with_eps(mine, 1e-6)
    assert max(errors([mine(image)], [theirs(image).logits])) < 1e-6


@pytest.mark.parametrize('name, img_size', SIZES)
@torch.no_grad()
def test_ours_computes_what_transformers_weights_compute(name, img_size):
    theirs = hugging_faces(name, img_size)
    theirs.load_state_dict(formula_weights(theirs))
    weights, lost = to_published(theirs.state_dict())
    assert not lost
    mine = PVT(arch_of(name), img_size, num_classes=7).eval()
    mine.load_state_dict(weights)
    image = torch.randn(2, 3, img_size, img_size)
    assert max(errors([mine(image)], [theirs(image).logits])) < 1e-4
    assert max(errors([with_eps(mine, 1e-6)(image)], [theirs(image).logits])) < 1e-6
