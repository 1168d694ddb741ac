"""The RetinaNet configs against the paper's recipe (Section 5.2, Table 2)."""
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from torch import nn

VARIANTS = dict(tiny=(23.0, 0.1), small=(34.2, 0.1), medium=(53.9, 0.), large=(71.1, 0.))
ITERATIONS = 7330  # an epoch: the 117,266 images of train2017 with objects, 16 at a time


@pytest.fixture(params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture
def cfg(variant) -> Config:
    return Config.fromfile(f'configs/retinanet/pvt_{variant}_1x.py')


def build(cfg: Config) -> nn.Module:
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(cfg.model)


def test_the_model_is_the_papers(cfg, variant):
    model = build(cfg)
    millions, drop_path_rate = VARIANTS[variant]
    assert round(sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6, 1) == millions
    assert all(p.requires_grad for p in model.parameters())
    assert cfg.model.backbone.arch == variant
    assert cfg.model.backbone.init_cfg.checkpoint.endswith(f'/PVT/releases/download/v2/pvt_{variant}.pth')
    assert model.backbone.block4[-1].drop_path.drop_prob == pytest.approx(drop_path_rate)
    assert model.bbox_head.num_classes == 80


def test_the_pyramid_has_strides_8_to_128(cfg):
    model = build(cfg).eval()
    with torch.no_grad():
        levels = model.neck(model.backbone(torch.zeros(1, 3, 256, 384)))
    assert [tuple(level.shape[1:]) for level in levels] == [(256, 256 // s, 384 // s) for s in (8, 16, 32, 64, 128)]
    assert [stride for stride, _ in model.bbox_head.prior_generator.strides] == [8, 16, 32, 64, 128]
    assert model.neck.fpn_convs[3].in_channels == 512  # the extra levels come from the backbone's last map


def test_the_optimizer_is_the_papers(cfg):
    model = build(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert type(wrapper.optimizer) is torch.optim.AdamW and wrapper.clip_grad_kwargs is None
    assert {(group['lr'], group['weight_decay']) for group in wrapper.optimizer.param_groups} == {(1e-4, 1e-4)}
    assert sum(len(group['params']) for group in wrapper.optimizer.param_groups) == len(list(model.parameters()))
    assert cfg.train_dataloader.batch_size == 2 and cfg.auto_scale_lr == dict(enable=False, base_batch_size=16)


def test_the_learning_rate_of_every_iteration_is_the_papers(cfg):
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    by_iteration, by_epoch = [], []
    for settings in cfg.param_scheduler:
        (by_epoch if settings.by_epoch else by_iteration).append(
            PARAM_SCHEDULERS.build(dict(settings, optimizer=optimizer)))
    assert cfg.train_cfg.max_epochs == 12
    for epoch in range(12):
        for iteration in range(epoch * ITERATIONS, (epoch + 1) * ITERATIONS):
            warm_up = min(1, 0.001 + 0.999 * iteration / 499)  # linear over the first 500 iterations
            expected = 1e-4 * warm_up * 0.1**((epoch >= 8) + (epoch >= 11))
            assert optimizer.param_groups[0]['lr'] == pytest.approx(expected, rel=1e-6), iteration
            optimizer.step()
            for scheduler in by_iteration:
                scheduler.step()
        for scheduler in by_epoch:
            scheduler.step()


def test_the_images_are_the_papers(cfg):
    for pipeline in (cfg.train_dataloader.dataset.pipeline, cfg.test_dataloader.dataset.pipeline):
        resizes = [t for t in pipeline if 'Resize' in t.type]
        assert [(t.type, tuple(t.scale), t.keep_ratio) for t in resizes] == [('Resize', (1333, 800), True)]
    flips = [t for t in cfg.train_dataloader.dataset.pipeline if t.type == 'RandomFlip']
    assert [t.prob for t in flips] == [0.5]
    assert cfg.model.data_preprocessor.pad_size_divisor == 32
    assert cfg.train_dataloader.dataset.ann_file.endswith('instances_train2017.json')
    assert cfg.test_dataloader.dataset.ann_file.endswith('instances_val2017.json')


def test_other_peoples_tools_find_the_backbone(cfg):
    assert cfg.custom_imports == dict(imports=['pvt_mm'])


# Trainable parameters (M) of Table 2.
TABLE_2 = dict(r18=21.3, pvt_tiny=23.0, r50=37.7, pvt_small=34.2, r101=56.7, x101_32x4d=56.4, pvt_medium=53.9,
               x101_64x4d=95.5, pvt_large=71.1)


@pytest.mark.parametrize('schedule', ['1x', '3x'])
@pytest.mark.parametrize('row', TABLE_2)
def test_every_row_of_table_2(row, schedule):
    cfg = Config.fromfile(f'configs/retinanet/{row}_{schedule}.py')
    trainable = sum(p.numel() for p in build(cfg).parameters() if p.requires_grad)
    assert round(trainable / 1e6, 1) == TABLE_2[row]
    assert not cfg.model.backbone.init_cfg.checkpoint.startswith('torchvision://')
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == (('AdamW', 1e-4) if row.startswith('pvt') else ('SGD', 0.01))
    assert cfg.train_dataloader.batch_size == 2 and cfg.auto_scale_lr.base_batch_size == 16
    epochs, milestones = {'1x': (12, [8, 11]), '3x': (36, [27, 33])}[schedule]
    assert cfg.train_cfg.max_epochs == epochs and cfg.param_scheduler[1].milestones == milestones
    assert cfg.param_scheduler[1].end == epochs and cfg.param_scheduler[0].end == 500
    resize = cfg.train_dataloader.dataset.pipeline[2]
    assert (resize.type, resize.scale) == {
        '1x': ('Resize', (1333, 800)), '3x': ('RandomResize', [(1333, 640), (1333, 800)])}[schedule]
    assert cfg.test_dataloader.dataset.pipeline[1].scale == (1333, 800)


@pytest.mark.parametrize('variant', VARIANTS)
def test_the_3x_rows_train_the_same_model(variant):
    one, three = (Config.fromfile(f'configs/retinanet/pvt_{variant}_{s}.py') for s in ('1x', '3x'))
    assert one.model == three.model and one.optim_wrapper == three.optim_wrapper
