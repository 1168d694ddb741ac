"""What a run was is kept in its checkpoints; one that resumes as another says so."""

import shutil
from copy import deepcopy

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from torch.utils.data import Dataset

from pvt_mm.engine import Runner
from pvt_mm.engine.record import KEY, check_record, count_processes, differences, make_record, prepare_resume
from pvt_mm.errors import CheckpointError, SettingError
from tests.engine.tiny import Line

MODELS.register_module(module=Line, name='TestRecordLine')


@DATASETS.register_module('TestRecordOnes')
class Ones(Dataset):
    def __init__(self, **settings):
        pass

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.ones(1)


@pytest.fixture
def cfg(tmp_path) -> Config:
    """A run on a folder of images and a file of annotations."""
    (tmp_path / 'data' / 'images').mkdir(parents=True)
    (tmp_path / 'data' / 'images' / '1.jpg').touch()
    (tmp_path / 'data' / 'train.json').write_text('{}')
    return Config(
        dict(
            runner_type='PVTRunner',
            model=dict(type='TestRecordLine'),
            work_dir=str(tmp_path / 'work'),
            train_dataloader=dict(
                batch_size=4,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=True),
                dataset=dict(
                    type='TestRecordOnes',
                    data_root=str(tmp_path / 'data'),
                    ann_file='train.json',
                    data_prefix=dict(img='images/'),
                ),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=2),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
            param_scheduler=[dict(type='MultiStepLR', milestones=[1], by_epoch=True)],
            randomness=dict(seed=1),
            default_hooks=dict(logger=None, runtime_info=None),
            default_scope='mmengine',
        )
    )


def changed(cfg: Config, options: dict) -> Config:
    cfg = deepcopy(cfg)
    cfg.merge_from_dict(options)
    return cfg


def compared(cfg: Config, new: Config, part: str) -> list[str]:
    return differences(make_record(cfg, 1)[part], make_record(new, 1)[part])


@pytest.mark.parametrize(
    'options, line',
    [
        ({'optim_wrapper.optimizer.lr': 0.2}, 'optim_wrapper.optimizer.lr: 0.1 -> 0.2'),
        ({'optim_wrapper.accumulative_counts': 2}, 'optim_wrapper.accumulative_counts: none -> 2'),
        ({'param_scheduler.0.milestones': [2]}, 'param_scheduler.0.milestones: [1] -> [2]'),
        ({'train_dataloader.batch_size': 2}, 'batch_size: 4 -> 2'),
        ({'train_dataloader.sampler.shuffle': False}, 'train_dataloader.sampler.shuffle: True -> False'),
        ({'model.img_size': 96}, 'model.img_size: none -> 96'),
        ({'custom_hooks': [dict(type='EMAHook')]}, 'custom_hooks.0.type: none -> EMAHook'),
        ({'randomness.diff_rank_seed': True}, 'diff_rank_seed: none -> True'),
    ],
)
def test_what_makes_another_run_is_listed(cfg, options, line):
    lines = compared(cfg, changed(cfg, options), 'exact')
    assert line in lines and len(lines) <= 2


@pytest.mark.parametrize(
    'options, line',
    [
        ({'train_dataloader.num_workers': 2}, 'num_workers: 0 -> 2'),
        ({'train_cfg.max_epochs': 3}, 'train_cfg.max_epochs: 2 -> 3'),
        ({'randomness.deterministic': True}, 'deterministic: none -> True'),
    ],
)
def test_what_leaves_the_run_the_same_is_only_listed(cfg, options, line):
    new = changed(cfg, options)
    assert compared(cfg, new, 'exact') == [] and compared(cfg, new, 'other') == [line]


def test_a_longer_run_changes_a_schedule_that_ends_with_the_run(cfg):
    cfg.param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True)]
    new = changed(cfg, {'train_cfg.max_epochs': 3})
    assert compared(cfg, new, 'exact') == ['param_scheduler.0.end: 2 -> 3']
    cfg.param_scheduler[0].end = new.param_scheduler[0].end = 2
    assert compared(cfg, new, 'exact') == []


def test_data_is_what_the_files_hold_not_where_they_lie(cfg, tmp_path):
    shutil.copytree(tmp_path / 'data', tmp_path / 'elsewhere')
    new = changed(cfg, {'train_dataloader.dataset.data_root': str(tmp_path / 'elsewhere')})
    new.train_dataloader.dataset = dict(reversed(new.train_dataloader.dataset.items()))
    assert compared(cfg, new, 'exact') == []
    (tmp_path / 'elsewhere' / 'train.json').write_text('[]')
    (tmp_path / 'elsewhere' / 'images' / '2.jpg').touch()
    first, second = compared(cfg, new, 'exact')
    assert first.startswith('dataset.ann_file: 2 bytes, sha256 ') and '-> 2 bytes, sha256' in first
    assert second.startswith('dataset.data_prefix.img: 1 files') and '-> 2 files' in second


def test_datasets_inside_others_are_looked_at(cfg, tmp_path):
    inner = cfg.train_dataloader.dataset
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', dataset=inner)])
    before = make_record(cfg, 1)
    (tmp_path / 'data' / 'train.json').write_text('[]')
    (line,) = differences(before['exact'], make_record(cfg, 1)['exact'])
    assert line.startswith('dataset.datasets.0.dataset.ann_file: ')


def test_pretrained_weights_are_listed_by_their_hash_and_do_not_matter_to_a_resumed_run(cfg, tmp_path):
    torch.save({}, tmp_path / 'a.pth')
    cfg.model.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))
    before = make_record(cfg, 1)
    torch.save(dict(a=1), tmp_path / 'a.pth')
    after = make_record(cfg, 1)
    assert differences(before['exact'], after['exact']) == []
    assert differences(before['other'], after['other'])[0].startswith('pretrained: ')


def test_versions_are_recorded(cfg):
    versions = make_record(cfg, 1)['other']['versions']
    assert {'pvt_mm', 'torch', 'numpy', 'opencv', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation'} <= set(versions)
    assert all(type(value) is str for value in versions.values())  # a checkpoint holds no other class


@pytest.fixture
def checkpoint(cfg) -> dict:
    return dict(meta={KEY: make_record(cfg, 2), 'seed': 1}, optimizer={}, param_schedulers=[])


def test_one_error_lists_everything_that_differs(cfg, checkpoint):
    new = make_record(changed(cfg, {'optim_wrapper.optimizer.lr': 0.2, 'train_dataloader.batch_size': 8}), 2)
    del checkpoint['optimizer'], checkpoint['param_schedulers']
    with pytest.raises(CheckpointError) as error:
        check_record(checkpoint, new, 2, 'a.pth', anyway=False)
    assert str(error.value).splitlines() == [
        'a.pth is of a run that this one does not continue exactly:',
        '  seed: 1 -> 2',
        '  batch_size: 8 -> 16',
        '  optim_wrapper.optimizer.lr: 0.1 -> 0.2',
        '  it has no state of the optimizer',
        '  it has no state of the schedulers',
        'set these as they were, or give --resume-anyway (resume_anyway=True in a config)',
    ]


def test_with_resume_anyway_it_is_only_said(cfg, checkpoint, monkeypatch):
    said = []
    monkeypatch.setattr('pvt_mm.engine.record.print_log', lambda line, **kwargs: said.append(line))
    check_record(checkpoint, make_record(cfg, 2), 1, 'a.pth', anyway=False)
    check_record(checkpoint, make_record(cfg, 2), None, 'a.pth', anyway=False)  # the seed is the checkpoint's
    assert said == []
    check_record(checkpoint, make_record(changed(cfg, {'train_cfg.max_epochs': 9}), 2), 2, 'a.pth', anyway=True)
    assert said == ['resumed with a change: seed: 1 -> 2', 'resumed with a change: train_cfg.max_epochs: 2 -> 9']


@pytest.mark.parametrize('record', [None, 3, dict(exact={}), dict(exact={}, other=dict(world_size=1))])
def test_a_checkpoint_without_a_record_is_refused(cfg, checkpoint, record):
    checkpoint['meta'][KEY] = record
    with pytest.raises(CheckpointError, match='it has no record of its run: mmengine, or an earlier version, saved it'):
        check_record(checkpoint, make_record(cfg, 2), 1, 'a.pth', anyway=False)


def test_a_runner_keeps_the_record_and_refuses_another_run(cfg):
    first = Runner.from_cfg(changed(cfg, dict(experiment_name=f'{cfg.work_dir}_1', train_cfg=dict(max_epochs=1))))
    first.train()
    longer = dict(experiment_name=f'{cfg.work_dir}_2', resume=True)
    Runner.from_cfg(changed(cfg, longer)).train()
    other = changed(
        cfg, longer | {'experiment_name': 'o', 'optim_wrapper.optimizer.lr': 0.2, 'train_cfg.max_epochs': 3}
    )
    with pytest.raises(CheckpointError, match=r'epoch_2\.pth is of a run .*\n  optim_wrapper.optimizer.lr: 0.1 -> 0.2'):
        Runner.from_cfg(other).train()
    anyway = changed(other, dict(experiment_name=f'{cfg.work_dir}_3', resume_anyway=True, resume=False))
    again = Runner.from_cfg(anyway)
    again.train()
    assert again.epoch == 3


@pytest.fixture
def saved(cfg, tmp_path, monkeypatch):
    """A config that resumes from the checkpoint of two processes, and a function that sets how many there are now."""
    cfg.merge_from_dict(dict(launcher='pytorch', resume=True))
    torch.save(dict(meta={KEY: make_record(cfg, 2)}), tmp_path / 'epoch_1.pth')
    cfg.load_from = str(tmp_path / 'epoch_1.pth')
    return cfg, lambda processes: monkeypatch.setenv('WORLD_SIZE', str(processes))


@pytest.mark.parametrize('processes, batch', [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_other_processes_share_the_same_batch(saved, processes, batch):
    cfg, start = saved
    start(processes)
    prepare_resume(cfg)
    assert cfg.train_dataloader.batch_size == batch and count_processes(cfg) == processes
    prepare_resume(cfg)  # by the command, then by the runner
    assert cfg.train_dataloader.batch_size == batch


def test_a_batch_that_cannot_be_shared_is_refused_with_what_fits(saved):
    cfg, start = saved
    start(3)
    with pytest.raises(SettingError, match='2 processes trained with 8 images in a step.*: start 1, 2, 4, 8 processes'):
        prepare_resume(cfg)
    cfg.resume_anyway = True
    prepare_resume(cfg)
    assert cfg.train_dataloader.batch_size == 4


def test_a_batch_that_was_changed_on_purpose_stays(saved):
    cfg, start = saved
    start(4)
    cfg.train_dataloader.batch_size = 3
    prepare_resume(cfg)
    assert cfg.train_dataloader.batch_size == 3


def test_other_processes_are_said_to_be_equal_up_to_rounding(cfg):
    assert differences(dict(world_size=2), dict(world_size=4)) == [
        'world_size: 2 -> 4 (equal up to rounding; drop path and the sampling of RoIs draw other numbers)'
    ]
