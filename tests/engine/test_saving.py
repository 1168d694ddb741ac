"""Checkpoints are whole, old ones go after new ones have come, and a full disk harms nothing."""

import contextlib
import errno
import io
import logging
import os
import resource
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.visualization import LocalVisBackend, Visualizer

from pvt_mm.engine import CheckpointHook, Runner, saving
from pvt_mm.engine.saving import append, keep_log_whole, keep_scalars_whole, period, whole_file
from pvt_mm.errors import SettingError
from tests.engine.tiny import line_runner, validated


@pytest.fixture
def runner(tmp_path):
    return partial(line_runner, tmp_path)


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """Inside, the disk is full for this process where a file grows past a number of bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder) -> list[str]:
    return sorted(path.name for path in Path(folder).glob('*.pth'))


def hooks(**checkpoint) -> dict:
    return dict(default_hooks=dict(logger=None, checkpoint=dict(type='CheckpointHook', interval=1) | checkpoint))


class Watch(Hook):
    """Notes the files there are when a checkpoint is about to be written, and what last_checkpoint names."""

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def before_save_checkpoint(self, runner, checkpoint):
        pointer = self.folder / 'last_checkpoint'
        self.seen.append((names(self.folder), Path(pointer.read_text()).name if pointer.exists() else None))


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_text('old')
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), whole_file(path) as part:
            part.write_text('ne')
            assert path.read_text() == 'old'
            raise error
        assert path.read_text() == 'old' and os.listdir(tmp_path) == ['a.pth']
    with whole_file(path) as part:
        part.write_text('new')
    assert path.read_text() == 'new' and os.listdir(tmp_path) == ['a.pth']


def test_a_file_and_its_name_are_flushed_to_the_disk_before_and_after_it_is_renamed(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(saving, '_flush', lambda path: steps.append((path.name, sorted(os.listdir(tmp_path)))))
    with whole_file(tmp_path / 'a') as part:
        part.touch()
    assert steps == [('.a.part', ['.a.part']), (tmp_path.name, ['a'])]


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_told_with_the_file_the_free_space_and_the_way_out(tmp_path, monkeypatch, code):
    def full(path):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(saving, '_flush', full)  # where a network file system says it
    message = rf'a.pth was not written \({os.strerror(code)}\): {tmp_path} has [\d.]+ GB free; make room.*--resume$'
    with pytest.raises(SettingError, match=message), whole_file(tmp_path / 'a.pth') as part:
        part.touch()
    assert os.listdir(tmp_path) == []


def test_a_run_on_a_full_disk_keeps_its_last_checkpoint_and_its_log(runner, tmp_path):
    def large(name: str) -> Runner:
        """A run whose checkpoint is larger than its log, which pytest writes to a file as well."""
        run = runner(name, 1)
        run.model.register_buffer('filler', torch.zeros(2**18))
        return run

    large('first').train()
    good, size = (tmp_path / 'epoch_1.pth').read_bytes(), (tmp_path / 'epoch_1.pth').stat().st_size
    with small_files(size - 1), pytest.raises(SettingError, match=r'epoch_1.pth was not written \(File too large\)'):
        large('second').train()
    assert names(tmp_path) == ['epoch_1.pth'] and (tmp_path / 'epoch_1.pth').read_bytes() == good
    assert Path((tmp_path / 'last_checkpoint').read_text()).name == 'epoch_1.pth'
    assert not list(tmp_path.rglob('*.part'))
    for log in tmp_path.rglob('*.log'):
        assert log.read_text().endswith('\n')


def test_a_line_that_the_disk_does_not_take_is_left_out_whole_and_told_once(tmp_path, capsys):
    logger, path = logging.getLogger(str(tmp_path)), tmp_path / 'a.log'
    logger.addHandler(logging.FileHandler(path))
    keep_log_whole(logger)
    visualizer = Visualizer(vis_backends=[dict(type='LocalVisBackend')], save_dir=str(tmp_path))
    keep_scalars_whole(visualizer)
    with small_files(60):
        for text in ('a' * 50, 'b' * 50, 'c' * 50, 'd'):
            logger.warning(text)
            visualizer.add_scalars(dict(loss=0.5, epoch=text))
    assert path.read_text() == f'{"a" * 50}\nd\n'
    scalars = next(tmp_path.rglob('scalars.json')).read_text().splitlines()
    assert scalars == ['{"loss": 0.5, "epoch": "d", "step": 0}']
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and told[1] == f'{path} cannot be written to (File too large): training goes on without it'
    assert isinstance(visualizer.get_backend('LocalVisBackend'), LocalVisBackend)


def test_a_line_to_a_screen_that_is_on_the_full_disk_ends_nothing(tmp_path, monkeypatch):
    with io.TextIOWrapper(open(tmp_path / 'screen', 'wb', buffering=0), write_through=True) as screen:
        monkeypatch.setattr('sys.stderr', screen)
        with small_files(1):
            append(str(tmp_path / 'a.log'), 'one\n')
    assert (tmp_path / 'a.log').read_text() == ''


def test_a_log_goes_on_when_there_is_room_again(tmp_path, capsys):
    path = str(tmp_path / 'a.log')
    for size, text in ((2, 'one\n'), (100, 'two\n'), (5, 'three\n')):
        with small_files(size):
            append(path, text)
    assert Path(path).read_text() == 'two\n' and len(capsys.readouterr().err.splitlines()) == 2


def test_an_old_checkpoint_goes_only_when_the_new_one_is_there(runner, tmp_path):
    watch = Watch(tmp_path)
    runner('a', 3, custom_hooks=[watch], **hooks(max_keep_ckpts=1)).train()
    assert watch.seen == [([], None), (['epoch_1.pth'], 'epoch_1.pth'), (['epoch_2.pth'], 'epoch_2.pth')]
    assert names(tmp_path) == ['epoch_3.pth']


def test_one_that_a_kill_left_behind_goes_when_the_run_is_resumed(runner, tmp_path, monkeypatch):
    def kill(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(CheckpointHook, '_remove', kill)
        runner('a', 2, **hooks(max_keep_ckpts=1)).train()
    assert names(tmp_path) == ['epoch_1.pth', 'epoch_2.pth']
    (tmp_path / '.epoch_3.pth.part').touch()
    runner('b', 3, resume=True, **hooks(max_keep_ckpts=1)).train()
    assert names(tmp_path) == ['epoch_3.pth'] and not list(tmp_path.glob('.*.part'))


@pytest.mark.parametrize('best', ['acc', ['acc', 'recall']])
def test_the_best_so_far_goes_only_when_the_better_one_is_there(runner, tmp_path, best):
    watch = Watch(tmp_path)
    settings = validated(metrics=('acc', 'recall')) | hooks(save_best=best, rule='greater', interval=-1)
    runner('a', 2, custom_hooks=[watch], **settings).train()
    found = [f'best_{name}_epoch_2.pth' for name in ([best] if isinstance(best, str) else best)]
    assert names(tmp_path) == sorted([*found, 'epoch_2.pth'])
    before = [files for files, _ in watch.seen if 'best_acc_epoch_1.pth' in files]
    assert any('best_acc_epoch_2.pth' not in files for files in before)  # there when the better one is written


@pytest.mark.parametrize('text, expected', [('90s', 90), ('15min', 900), ('2h', 7200), ('0.5h', 1800)])
def test_a_time_is_read_with_its_unit(text, expected):
    assert period(text) == ('seconds', expected)


@pytest.mark.parametrize('text', ['15 min', '0s', '0', '-3', '2d', 'often', '1.5', ''])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(SettingError, match=f'save_every={text}: give a time, as 90s, 15min or 2h, or a number of iter'):
        period(text)


def test_checkpoints_inside_epochs_are_saved_and_the_newest_two_kept(runner, tmp_path):
    runner('a', 2, images=10, **hooks(save_every=2)).train()  # 5 iterations an epoch: the last is the epoch's own
    assert names(tmp_path) == ['epoch_1.pth', 'epoch_2.pth', 'iter_6.pth', 'iter_8.pth']
    meta = torch.load(tmp_path / 'iter_8.pth', weights_only=True)['meta']
    assert (meta['epoch'], meta['iter']) == (1, 8)


def test_checkpoints_by_time_are_saved_by_the_clock_since_the_last_of_any_kind(runner, tmp_path, monkeypatch):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(saving.time, 'monotonic', lambda: next(clock))
    runner(
        'a', 1, images=20, **hooks(save_every='35s')
    ).train()  # 10 iterations; the clock is read at each and each save
    assert names(tmp_path) == ['epoch_1.pth', 'iter_4.pth', 'iter_8.pth']


def test_those_of_save_every_do_not_take_the_place_of_the_configs_own(runner, tmp_path):
    loop = dict(train_cfg=dict(by_epoch=False, max_iters=6))
    runner('a', **loop, **hooks(by_epoch=False, interval=2, max_keep_ckpts=2, save_every=3)).train()
    assert names(tmp_path) == ['iter_3.pth', 'iter_4.pth', 'iter_6.pth']


def accumulating(count: int) -> dict:
    return dict(
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9), accumulative_counts=count),
    )


def test_a_checkpoint_inside_an_epoch_waits_for_the_update(runner, tmp_path):
    runner('a', 1, images=16, **accumulating(3), **hooks(save_every=4)).train()  # due at 4, updates at 3, 6 and the end
    assert names(tmp_path) == ['epoch_1.pth', 'iter_6.pth']
    assert 'gradients' not in torch.load(tmp_path / 'iter_6.pth', weights_only=True)


def test_one_at_the_end_of_an_epoch_holds_the_gradients_that_are_accumulated(runner, tmp_path):
    whole = runner('whole', 2, images=10, **accumulating(2))  # 5 iterations an epoch
    torch.manual_seed(0)
    whole.train()
    assert 'gradients' in torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    expected = whole.model.state_dict()
    resumed = runner('resumed', 2, images=10, resume=True, load_from=f'{tmp_path}/epoch_1.pth', **accumulating(2))
    resumed.train()
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, expected[name])


def test_a_config_that_says_checkpoint_hook_gets_ours(runner):
    for kind in ('CheckpointHook', 'mmengine.CheckpointHook'):
        built = runner(kind, 1, default_hooks=dict(checkpoint=dict(type=kind)))
        assert sum(isinstance(hook, CheckpointHook) for hook in built.hooks) == 1
