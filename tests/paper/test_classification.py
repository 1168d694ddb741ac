"""The rows of Table 1 against ``paper/paper.yml``, without mmpretrain: what needs it is in ``tests/classification``."""

import functools
import math

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from paper.rows import CONFIGS, Row, paper, recipe, table_rows
from pvt_mm.commands.get_flops import count_multiply_adds
from pvt_mm.models import PVT, PVTv2

ROWS = {row.key: row for table in paper()['tables'] for row in table_rows(table) if row.needs_mmpretrain}


@functools.cache
def load(key: str) -> Config:
    return Config.fromfile(CONFIGS / f'{key}.py')


@pytest.fixture(params=ROWS)
def row(request) -> Row:
    return ROWS[request.param]


def test_optimizer(row):
    cfg, expected = load(row.key), recipe(row)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.eps) == (expected['optimizer'], expected['lr'], expected['eps'])
    assert list(optimizer.betas) == expected['betas'] and optimizer.weight_decay == expected['weight_decay']
    assert (cfg.optim_wrapper.get('clip_grad') or {}).get('max_norm') == expected['clip_grad']
    assert cfg.train_dataloader.batch_size == expected['batch_per_gpu'] and cfg.train_dataloader.drop_last
    assert cfg.auto_scale_lr.base_batch_size == expected['scale_lr_base'] and not cfg.auto_scale_lr.enable


def test_learning_rate_of_each_epoch(row):
    """As timm's: a cosine over all epochs, whose first ones a line from the warm-up's learning rate replaces."""
    cfg, expected = load(row.key), recipe(row)
    epochs, lr, final = expected['epochs'], expected['lr'], expected['final_lr']
    assert cfg.train_cfg.type == 'EpochBasedTrainLoop' and cfg.train_cfg.max_epochs == epochs
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    schedulers = [PARAM_SCHEDULERS.build(dict(settings, optimizer=optimizer)) for settings in cfg.param_scheduler]
    for epoch in range(epochs):
        if epoch < expected['warm_up_epochs']:
            wanted = expected['warm_up_lr'] + (lr - expected['warm_up_lr']) * epoch / expected['warm_up_epochs']
        else:
            wanted = final + (lr - final) * (1 + math.cos(math.pi * epoch / epochs)) / 2
        assert optimizer.param_groups[0]['lr'] == pytest.approx(wanted, rel=2e-3)
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def test_images_and_labels(row):
    cfg, expected = load(row.key), recipe(row)
    train = {settings.type: settings for settings in cfg.train_dataloader.dataset.pipeline}
    assert list(train) == [
        'LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip', 'RandAugment', 'RandomErasing', 'PackInputs'
    ]  # fmt: skip
    crop, augment, erasing = train['RandomResizedCrop'], train['RandAugment'], train['RandomErasing']
    assert (crop.scale, crop.interpolation, crop.backend) == (expected['crop'], expected['interpolation'], 'pillow')
    assert train['RandomFlip'].prob == expected['flip'] and augment.hparams.interpolation == expected['interpolation']
    assert {key: augment[key] for key in expected['rand_augment']} == expected['rand_augment']
    assert {key: erasing[key] for key in expected['erasing']} == expected['erasing']
    sampler = cfg.train_dataloader.sampler
    assert (sampler.type, sampler.num_repeats) == ('RepeatAugSampler', expected['repeats'])
    model = cfg.model
    mixes = {mix.type: mix.alpha for mix in model.train_cfg.augments}
    assert mixes == {'Mixup': expected['mixup'], 'CutMix': expected['cutmix']} and 'probs' not in model.train_cfg
    loss = model.head.loss
    assert (loss.type, loss.mode, loss.label_smooth_val) == (
        'LabelSmoothLoss', 'original', expected['label_smoothing']
    )  # fmt: skip
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        resize, centre = loader.dataset.pipeline[1:3]
        assert (resize.type, resize.scale, resize.edge) == ('ResizeEdge', expected['test_scale'], 'short')
        assert (centre.type, centre.crop_size) == ('CenterCrop', expected['crop'])
        assert resize.interpolation == expected['interpolation']


def test_backbones_start_at_random_and_drop_paths_by_their_size(row):
    cfg, expected = load(row.key), recipe(row)
    backbone = cfg.model.backbone
    assert expected['weights'] is None and 'init_cfg' not in backbone
    assert backbone.get('drop_path_rate') == expected.get('drop_path_rate')
    assert cfg.model.data_preprocessor.num_classes == expected['classes']
    assert (backbone if row.family.startswith('PVT') else cfg.model.head).num_classes == expected['classes']


def test_parameters_and_multiply_adds_of_the_pvts(row):
    """Those of the ResNets need mmpretrain."""
    kinds = dict(PVT=PVT, PVTv2=PVTv2)
    if row.family not in kinds:
        return
    settings = dict(load(row.key).model.backbone)
    with torch.device('meta'):
        model = kinds[settings.pop('type')](**settings).eval()
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == row.params
    gflops = sum(count_multiply_adds(model, tuple(row.shape)).values()) / 1e9
    assert gflops == pytest.approx(row.gflops, abs=0.1)
