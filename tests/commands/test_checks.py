"""What training and testing look at before they begin: backends, work dir, disk, and the length of an epoch."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.optim import build_optim_wrapper

from pvt_mm.commands import checks
from pvt_mm.commands.launch import CONFIGS, find_config
from pvt_mm.errors import SettingError


def test_a_backend_whose_package_is_missing_is_named_with_the_command(monkeypatch):
    backends = [dict(type='LocalVisBackend'), dict(type='WandbVisBackend')]
    cfg = Config(dict(default_scope='mmdet', visualizer=dict(type='DetLocalVisualizer', vis_backends=backends)))
    monkeypatch.setattr(checks, 'find_spec', lambda name: None)
    with pytest.raises(SettingError, match='^WandbVisBackend needs the package wandb: pip install wandb$'):
        checks.check_backends(cfg)
    monkeypatch.setattr(checks, 'find_spec', lambda name: name)
    checks.check_backends(cfg)
    cfg.visualizer.vis_backends[1].type = 'TensorbordVisBackend'
    with pytest.raises(SettingError, match='vis_backends.1.type=TensorbordVisBackend .* is it TensorboardVisBackend?'):
        checks.check_backends(cfg)


def test_the_backends_that_need_a_package_are_those_of_mmengine():
    from mmengine.registry import VISBACKENDS

    assert set(checks.PACKAGES) | {'LocalVisBackend'} == set(VISBACKENDS.module_dict)


def test_a_work_dir_that_can_be_written_to_leaves_nothing_behind(tmp_path):
    checks.check_work_dir(Config(dict(work_dir=str(tmp_path / 'a/b'))))
    assert list(tmp_path.iterdir()) == []


def test_a_work_dir_that_cannot_be_written_to_is_named():
    with pytest.raises(SettingError, match='work dir /proc/runs/a: /proc cannot be written to .*--work-dir DIR$'):
        checks.check_work_dir(Config(dict(work_dir='/proc/runs/a')))


@pytest.mark.parametrize(
    'kind, key, said',
    [
        (
            'SegDataPreProcessor',
            'pad_size_divisor',
            'set model.data_preprocessor.test_cfg.size_divisor=32 in its place',
        ),
        ('DetDataPreprocessor', 'size_divisor', 'set model.data_preprocessor.pad_size_divisor=32 in its place'),
        ('SegDataPreProcessor', 'maen', 'it takes mean, std, size, size_divisor, pad_val, '),
        ('DetDataPreprocessor', 'to_rgb', 'it takes mean, std, pad_size_divisor, '),
    ],
)
def test_a_key_that_the_data_preprocessor_does_not_take_is_named(kind, key, said):
    scope = 'mmseg' if kind == 'SegDataPreProcessor' else 'mmdet'
    settings = dict(type=kind, mean=[0], std=[1])
    cfg = Config(dict(default_scope=scope, model=dict(data_preprocessor=settings)))
    checks.check_preprocessor_keys(cfg)
    cfg.model.data_preprocessor[key] = 32
    with pytest.raises(SettingError, match=f'^model.data_preprocessor: {kind} does not take {key}[:;] {said}'):
        checks.check_preprocessor_keys(cfg)


def run_cfg(**hook) -> Config:
    cfg = Config.fromfile(find_config('retinanet/pvt_nano_digits'))
    cfg.work_dir = 'here'
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1) | hook
    return cfg


@pytest.mark.parametrize(
    'hook, number',
    [
        (dict(), 4),
        (dict(interval=3), 2),  # and the last
        (dict(interval=-1), 1),
        (dict(max_keep_ckpts=1), 2),  # the new one beside the old
        (dict(max_keep_ckpts=9), 4),
        (dict(max_keep_ckpts=1, save_best='coco/bbox_mAP'), 3),
        (dict(save_best='coco/bbox_mAP'), 6),
        (dict(max_keep_ckpts=1, save_every='15min'), 4),
        (dict(by_epoch=False), 0),  # the run counts epochs
    ],
)
def test_the_checkpoints_that_a_run_keeps_are_counted(hook, number):
    cfg = run_cfg(**hook)
    assert checks.count_checkpoints(cfg, cfg.default_hooks.checkpoint) == number


@pytest.mark.parametrize(
    'optimizer',
    [dict(type='AdamW', lr=0.1), dict(type='SGD', lr=0.1, momentum=0.9), dict(type='SGD', lr=0.1)],
)
def test_the_size_of_a_checkpoint_is_that_of_a_saved_one(tmp_path, optimizer):
    from mmengine.registry import MODELS, init_default_scope

    cfg = run_cfg()
    cfg.optim_wrapper.optimizer = optimizer
    cfg.model.backbone.frozen_stages = 1
    init_default_scope('mmdet')
    expected = checks.checkpoint_size(cfg, cfg.default_hooks.checkpoint)
    assert checks.checkpoint_size(cfg, dict(save_optimizer=False)) <= expected
    model = MODELS.build(cfg.model)  # the config is as it was
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    wrapper.step()
    torch.save(dict(state_dict=model.state_dict(), optimizer=wrapper.state_dict()), tmp_path / 'a.pth')
    assert (tmp_path / 'a.pth').stat().st_size == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    'config',
    [
        'mmdet::pvt/retinanet_pvt-t_fpn_1x_coco.py',  # computes while it is built
        'mmdet::strong_baselines/mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_lsj-50e_coco.py',  # asks for processes
        'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    ],
)
def test_models_of_other_libraries_have_a_size(config):
    assert checks.checkpoint_size(get_config(config), {}) > 1e7


def test_a_full_disk_is_told_with_the_way_out(monkeypatch):
    cfg = run_cfg()
    size = checks.checkpoint_size(cfg, cfg.default_hooks.checkpoint)
    monkeypatch.setattr('shutil.disk_usage', lambda place: SimpleNamespace(free=3 * size))
    with pytest.raises(
        SettingError,
        match=r'keeps 4 checkpoints of 20 MB, 0.1 GB, and .* 0.1 GB free: .*max_keep_ckpts=2, or .*--work-',
    ):
        checks.check_disk(cfg)
    cfg.default_hooks.checkpoint.max_keep_ckpts = 2
    checks.check_disk(cfg)
    assert not Path('here').exists()


def test_a_run_of_iterations_may_have_batches_larger_than_its_dataset(monkeypatch):
    """Its sampler never ends, and fills them."""
    cfg = run_cfg()
    monkeypatch.setattr(checks, 'load_datasets', lambda cfg, part: [])
    monkeypatch.setattr(checks, 'count_images', lambda dataset, loaded: 4)
    cfg.train_dataloader.update(batch_size=8, drop_last=True)
    with pytest.raises(SettingError, match='an epoch has no iteration'):
        checks.check_training(cfg)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=8)
    checks.check_training(cfg)


@pytest.mark.parametrize(
    'images, loader, processes, length',
    [
        (16, dict(batch_size=8), 1, 2),
        (17, dict(batch_size=8), 1, 3),
        (17, dict(batch_size=8, drop_last=True), 1, 2),
        (17, dict(batch_size=8, batch_sampler=dict(drop_last=True)), 1, 2),
        (17, dict(batch_size=2), 4, 3),
    ],
)
def test_the_length_of_an_epoch_is_the_loaders(monkeypatch, images, loader, processes, length):
    monkeypatch.setenv('WORLD_SIZE', str(processes))
    cfg = Config(dict(train_dataloader=loader, launcher='pytorch'))
    assert checks.epoch_length(cfg, images) == length


# the classifiers' need mmpretrain: tests/classification
OTHERS = ('_base_', 'classification')


@pytest.mark.parametrize('config', [path for path in CONFIGS.glob('*/*digits.py') if path.parent.name not in OTHERS])
def test_the_checks_before_a_run_have_nothing_to_say_of_a_digits_config(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # without data: some are tested on what they are trained on
    cfg, lines = Config.fromfile(config), []
    cfg.work_dir = str(tmp_path)
    checks.check_training(cfg, padding=True, log=lines.append)
    assert lines == []


def test_training_is_warned_of_what_may_be_meant(digits, tmp_path):
    cfg = run_cfg()
    cfg.work_dir = str(tmp_path)
    cfg.train_dataloader.dataset.data_root = str(digits / 'coco')
    lines = []
    checks.check_training(cfg, log=lines.append)
    assert len(lines) == 1 and 'the run has 4 epochs of 2 iterations' in lines[0]
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='pvt://tiny')
    cfg.model.data_preprocessor.bgr_to_rgb = False
    with pytest.raises(SettingError, match='was trained with RGB'):
        checks.check_training(cfg)
