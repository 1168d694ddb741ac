"""Layer-wise learning-rate decay."""

import importlib

import pytest
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from torch import nn

from pvt_mm.errors import SettingError
from pvt_mm.models import PVT, ColumnarViT, PVTv2
from tests.common import NANO

TWO_BLOCKS = dict(NANO, num_layers=(2, 1, 3, 1))


class Model(BaseModel):
    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(2, 2)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        raise NotImplementedError


def rates(model: nn.Module, **paramwise_cfg) -> dict[str, float]:
    """The learning rate of each parameter."""
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='PVTLayerDecayConstructor',
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
            paramwise_cfg=paramwise_cfg,
        ),
    )
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = wrapper.optimizer.param_groups  # the wrapper's own hold one more, for the log
    return {names[group['params'][0]]: group['lr'] for group in groups}


@pytest.mark.parametrize('kind', [PVT, PVTv2])
def test_each_layer_learns_half_as_fast_as_the_next(kind):
    names = 'patch_embed1.proj.weight block1.0 block1.1 patch_embed2 block2.0 patch_embed3 block3.0 block3.2 block4.0'
    expected = [8, 7, 6, 5, 5, 4, 4, 2, 1]
    arch = TWO_BLOCKS if kind is PVT else dict(TWO_BLOCKS, strides=(4, 2, 2, 2), linear=(False,) * 4)
    found = rates(Model(kind(arch)), layer_decay_rate=0.5)
    for name, power in zip(names.split(), expected):
        same = [rate for key, rate in found.items() if key.startswith(f'backbone.{name}')]
        assert same and set(same) == {0.5**power}, name
    assert found['head.weight'] == 1
    if kind is PVT:
        assert found['backbone.pos_embed1'] == 0.5**8 and found['backbone.pos_embed4'] == 0.5
    else:
        assert found['backbone.norm3.weight'] == 0.5**2 and found['backbone.norm4.weight'] == 0.5


def test_a_vits_blocks_are_its_layers():
    vit = ColumnarViT()
    blocks = len(vit.blocks)
    found = rates(Model(vit), layer_decay_rate=0.5)
    assert found['backbone.pos_embed'] == 0.5 ** (blocks + 1)
    assert found[f'backbone.blocks.{blocks - 1}.norm1.weight'] == 0.5


def test_the_classifier_learns_as_fast_as_the_head():
    found = rates(Model(PVT(NANO, num_classes=3)), layer_decay_rate=0.5)
    assert {found[f'backbone.{name}'] for name in ('cls_token', 'norm.weight', 'head.bias')} == {1}


def test_other_options_hold_too_and_frozen_weights_are_left_out():
    model = Model(PVT(TWO_BLOCKS, frozen_stages=1))
    found = rates(model, layer_decay_rate=0.5, custom_keys=dict(block4=dict(lr_mult=3.0)))
    assert found['backbone.block4.0.norm1.weight'] == 1.5 and found['backbone.block3.2.norm1.weight'] == 0.25
    assert not any(name.startswith('backbone.block1.') for name in found)


@pytest.mark.parametrize('rate', [None, 0, 1.5, 'much'])
def test_a_rate_that_is_none_is_named(rate):
    with pytest.raises(SettingError, match='layer_decay_rate='):
        rates(Model(PVT(NANO)), norm_decay_mult=0.0, layer_decay_rate=rate)


@pytest.mark.parametrize('options', [{}, dict(paramwise_cfg={}), dict(paramwise_cfg=None)])
def test_no_options_are_an_error_with_the_line_to_write(options):
    """mmengine would train with one learning rate."""
    settings = dict(constructor='PVTLayerDecayConstructor', optimizer=dict(type='AdamW', lr=1.0))
    with pytest.raises(
        SettingError, match=r'layer_decay_rate=None must be .* paramwise_cfg=dict\(layer_decay_rate=0.9'
    ):
        build_optim_wrapper(Model(PVT(NANO)), settings | options)


@pytest.mark.parametrize('library', ['mmdet', 'mmseg'])
def test_the_constructors_of_mmdet_and_mmseg_know_no_pvt(library):
    importlib.import_module(f'{library}.engine')
    options = dict(decay_rate=0.7, decay_type='layer_wise', num_layers=6)
    settings = dict(
        constructor=f'{library}.LearningRateDecayOptimizerConstructor',
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
        paramwise_cfg=options,
    )
    with pytest.raises(NotImplementedError):
        build_optim_wrapper(Model(PVT(NANO)), settings)


def test_a_model_without_depths_is_named():
    with pytest.raises(SettingError, match='no part of the Model has get_layer_depth'):
        rates(Model(nn.Linear(2, 2)), layer_decay_rate=0.5)
