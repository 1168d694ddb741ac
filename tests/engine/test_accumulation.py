"""Gradients of two batches of 2, accumulated, against those of one batch of 4. No BN here: the digits' models norm
over groups, or their BN is in evaluation mode."""

from copy import deepcopy

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch import Tensor, nn

from pvt_mm.commands.launch import find_config, set_data_root


@pytest.fixture
def setup(digits):
    """A nano model in training mode, without chance in its layers, and a batch of 4 scenes."""

    def make(system: str) -> tuple[nn.Module, dict]:
        cfg = Config.fromfile(find_config(f'{system}/pvt_nano_digits'))
        set_data_root(cfg, str(digits / ('ADEChallengeData2016' if system == 'semantic_fpn' else 'coco')))
        cfg.train_dataloader.update(num_workers=0, persistent_workers=False, batch_size=4)
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        model = MODELS.build(cfg.model).train()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return model, next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))

    return make


def gradient(model: nn.Module, *batches: dict) -> Tensor:
    """Of the mean of the batches' losses, as an OptimWrapper accumulates it."""
    model.zero_grad()
    for batch in batches:
        losses = model(**model.data_preprocessor(deepcopy(batch), True), mode='loss')
        (model.parse_losses(losses)[0] / len(batches)).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def part(batch: dict, *indices: int) -> dict:
    return {key: [values[i] for i in indices] for key, values in batch.items()}


def difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def test_a_segmenters_accumulated_gradients_are_those_of_the_large_batch(setup):
    model, batch = setup('semantic_fpn')
    halves = gradient(model, part(batch, 0, 1), part(batch, 2, 3))
    assert difference(halves, gradient(model, batch)) < 1e-5


@pytest.mark.parametrize('system', ['retinanet', 'detr'])
def test_a_detectors_are_where_each_half_has_as_many_objects(setup, system):
    model, batch = setup(system)
    half = part(batch, 0, 1)
    assert difference(gradient(model, half, half), gradient(model, part(batch, 0, 1, 0, 1))) < 1e-5
