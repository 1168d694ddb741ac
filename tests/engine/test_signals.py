"""Training that is told to end saves and ends; the data loader's workers live until then."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
import torch
from mmengine.hooks import EMAHook, Hook

from pvt_mm.engine import signals
from pvt_mm.engine.signals import Stopped
from tests.common import ROOT
from tests.engine.tiny import line_runner, validated


@pytest.fixture
def runner(tmp_path):
    return partial(line_runner, tmp_path)


@pytest.fixture(autouse=True)
def foreground():
    """Hears Ctrl-C where the tests run in the background of a script, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Send(Hook):
    """Sends this process signals after the given iteration of training, or of validation."""

    def __init__(self, *numbers: int, iteration: int, mode: str = 'train'):
        self.numbers, self.iteration, self.mode = numbers, iteration, mode

    def _after_iter(self, runner, batch_idx, data_batch=None, outputs=None, mode='train'):
        if mode == self.mode and batch_idx + 1 == self.iteration:
            for number in self.numbers:
                os.kill(os.getpid(), number)


def content(work_dir, name: str) -> dict:
    return torch.load(work_dir / name, weights_only=True)


@pytest.mark.parametrize('number, code', [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_at_the_iterations_end_and_ends_with_its_code(runner, tmp_path, capfd, number, code):
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as end:
        runner('a', 1, images=10, custom_hooks=[Send(number, iteration=3)]).train()
    assert end.value.code == code and signal.getsignal(number) is before
    assert content(tmp_path, 'iter_3.pth')['meta']['iter'] == 3
    assert (tmp_path / 'last_checkpoint').read_text() == f'{tmp_path}/iter_3.pth'
    assert f'{number.name}: saving a checkpoint, then training ends' in capfd.readouterr().err
    resumed = runner('b', 1, images=10, resume=True)
    resumed.load_or_resume()
    assert resumed.iter == 3


def test_a_second_ctrl_c_leaves_at_once_and_one_that_torchrun_hands_on_is_the_first(runner, tmp_path, monkeypatch):
    twice = Send(signal.SIGINT, signal.SIGINT, iteration=2)
    with pytest.raises(Stopped):
        runner('a', 1, images=10, custom_hooks=[twice]).train()
    monkeypatch.setattr(signals, 'SAME', 0.0)
    with pytest.raises(KeyboardInterrupt):
        line_runner(tmp_path / 'b', 'b', 1, images=10, custom_hooks=[twice]).train()
    assert not list((tmp_path / 'b').glob('*.pth'))


def test_a_signal_waits_for_the_update(runner, tmp_path):
    wrapper = dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=3)
    with pytest.raises(Stopped):
        runner('a', 1, images=20, optim_wrapper=wrapper, custom_hooks=[Send(signal.SIGTERM, iteration=4)]).train()
    assert 'gradients' not in content(tmp_path, 'iter_6.pth')


def test_a_signal_in_validation_ends_it_and_saves_what_is_not_saved_with_the_trained_weights(runner, tmp_path):
    send = Send(signal.SIGTERM, iteration=2, mode='val')
    settings = validated(images=9) | dict(default_hooks=dict(logger=None, checkpoint=dict(interval=5)))
    settings['default_hooks']['checkpoint'] |= dict(type='CheckpointHook')
    stopped = runner('a', 2, custom_hooks=[EMAHook(momentum=0.5), send], **settings)
    with pytest.raises(Stopped):
        stopped.train()
    saved = content(tmp_path, 'iter_2.pth')
    assert (saved['meta']['epoch'], saved['meta']['iter']) == (1, 2)
    # mmengine saves the averaged weights as the model's, and the trained ones as the copy's
    ema = next(hook for hook in stopped.hooks if isinstance(hook, EMAHook))
    for name, value in stopped.model.state_dict().items():
        assert torch.equal(saved['ema_state_dict'][f'module.{name}'], value)
        assert torch.equal(saved['state_dict'][name], ema.ema_model.module.state_dict()[name])
        assert not torch.equal(saved['state_dict'][name], value)


def test_a_signal_in_validation_saves_nothing_twice(runner, tmp_path):
    with pytest.raises(Stopped):
        runner('a', 2, custom_hooks=[Send(signal.SIGTERM, iteration=2, mode='val')], **validated()).train()
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['epoch_1.pth']


def test_a_signal_that_is_ignored_stays_ignored_and_other_threads_are_left_alone(runner, tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a job in a script's background
    try:
        runner('a', 1, custom_hooks=[Send(signal.SIGINT, iteration=1)]).train()
    finally:
        signal.signal(signal.SIGINT, before)
    built, failed = runner('b', 1), []

    def train():
        try:
            built.train()
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert failed == [] and built.iter == 2


def test_without_a_checkpoint_hook_training_ends_and_says_that_nothing_is_saved(runner, tmp_path):
    hooks = dict(logger=None, checkpoint=None)
    with pytest.raises(Stopped):
        runner('a', 1, default_hooks=hooks, custom_hooks=[Send(signal.SIGTERM, iteration=1)]).train()
    log = next(tmp_path.rglob('*.log')).read_text()
    assert 'SIGTERM: training ended after 1 iterations; nothing is saved' in log


SCRIPT = """
import sys, time
import torch
from torch.utils.data import Dataset
from tests.engine.tiny import line_runner

class Slow(Dataset):
    def __len__(self):
        return 4000
    def __getitem__(self, index):
        time.sleep(0.02)
        return torch.ones(1)

loader = dict(
    batch_size=2, num_workers=2, persistent_workers=True, dataset=Slow(), sampler=dict(type='DefaultSampler')
)
hooks = dict(logger=dict(type='LoggerHook', interval=1))
runner = line_runner(sys.argv[1], 'a', 1, train_dataloader=loader, default_hooks=hooks)
runner.train()
"""


@pytest.mark.parametrize('number, code', [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_a_signal_to_all_processes_of_a_run_ends_it_well(tmp_path, number, code):
    """As Ctrl-C, Slurm and kill -- -GROUP send it: to the workers too."""
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    run = subprocess.Popen(
        [sys.executable, '-c', SCRIPT, str(tmp_path)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        lines = []
        for line in run.stdout:
            lines.append(line)
            if 'Epoch(train)' in line:
                break
        os.killpg(run.pid, number)
        output = ''.join(lines) + run.communicate(timeout=240)[0]
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == code, output[-3000:]
    assert 'Traceback' not in output and 'is killed by signal' not in output, output[-3000:]
    (saved,) = tmp_path.glob('iter_*.pth')
    assert content(tmp_path, saved.name)['meta']['iter'] == int(saved.stem.removeprefix('iter_'))


RANK = """
import os, signal, sys
from pvt_mm.commands.launch import one_line_errors
from tests.engine.test_signals import Send
from tests.engine.tiny import line_runner

@one_line_errors
def main():
    send = [Send(signal.SIGUSR1, iteration=3)] if os.environ['RANK'] == '1' else []
    runner = line_runner(sys.argv[1], 'a', 1, images=40, launcher='pytorch', custom_hooks=send)
    try:
        runner.train()
    finally:
        print('iterations before the last:', runner.iter)

main()
"""


def test_a_signal_to_one_process_of_two_ends_both_after_the_same_iteration(tmp_path, on_cpu):
    env = {**os.environ, **on_cpu, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    env |= dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=on_cpu['PORT'], WORLD_SIZE='2')
    ranks = [
        subprocess.Popen(
            [sys.executable, '-c', RANK, str(tmp_path)],
            env=env | dict(RANK=str(rank), LOCAL_RANK=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        said = [rank.communicate(timeout=240)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [75, 75], said
    assert all('iterations before the last: 2' in text for text in said), said
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_3.pth']


def test_a_worker_ends_when_its_parent_says_so_and_on_nobody_elses_word():
    from torch.utils.data import DataLoader

    loader = DataLoader([0] * 8, num_workers=1, worker_init_fn=partial(signals.init_worker, None))
    iterator = iter(loader)
    next(iterator)
    (worker,) = iterator._workers
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        subprocess.run(['kill', f'-{number.value}', str(worker.pid)], check=True)  # by another process
    time.sleep(0.3)
    assert worker.is_alive() and len(list(iterator)) == 7
    iterator = iter(loader)
    next(iterator)
    (worker,) = iterator._workers
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0
