"""Several processes, through tools/dist_train.sh, as people call it."""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
from mmengine.config import Config

from pvt_mm.commands import train
from pvt_mm.commands.dist import find_rendezvous, split_arguments
from pvt_mm.engine.restarts import restart_store
from pvt_mm.errors import SettingError
from tests.common import ALONE, ROOT
from tests.engine.tiny import line_runner

SEGMENTER = ROOT / 'configs/semantic_fpn/pvt_nano_digits.py'


@pytest.mark.parametrize(
    'command, args, message',
    [
        ('train', ['8', 'a.py'], 'GPUS is a.py, not a number above 0: dist_train.sh CONFIG GPUS'),
        ('train', ['a.py', '0'], 'GPUS is 0'),
        ('train', ['a.py', '-1'], 'usage: dist_train.sh CONFIG GPUS'),
        ('train', ['a.py'], 'usage: dist_train.sh CONFIG GPUS'),
        ('train', ['a.py', '--resume', '8'], 'usage: dist_train.sh CONFIG GPUS'),
        ('test', ['a.py', '8', 'b.pth'], 'GPUS is b.pth, not a number above 0: dist_test.sh CONFIG CHECKPOINT GPUS'),
        ('test', ['a.py', '8'], 'usage: dist_test.sh CONFIG CHECKPOINT GPUS'),
    ],
)
def test_arguments_in_another_order_are_refused_with_the_right_one(command, args, message):
    with pytest.raises(SettingError, match=message):
        split_arguments(command, args)


def test_arguments_are_files_a_number_and_flags():
    assert split_arguments('test', ['a b.py', 'c.pth', '4', '--amp']) == (['a b.py', 'c.pth'], 4, ['--amp'])


def test_restarts_are_a_flag_or_a_variable(monkeypatch):
    monkeypatch.setenv('MAX_RESTARTS', '1')
    options = ['--cfg-options', 'a=1', 'b=2']
    assert split_arguments('train', ['a.py', '4', *options])[2] == options and os.environ['MAX_RESTARTS'] == '1'
    assert split_arguments('train', ['a.py', '4', *options, '--max-restarts=3'])[2] == options
    assert os.environ['MAX_RESTARTS'] == '3'


def test_processes_started_again_do_not_meet_the_addresses_of_those_before(monkeypatch):
    server = torch.distributed.TCPStore('localhost', 0, is_master=True)
    variables = dict(MASTER_ADDR='localhost', MASTER_PORT=server.port, RANK=0, WORLD_SIZE=1)
    for name, value in dict(variables, TORCHELASTIC_USE_AGENT_STORE=True, TORCHELASTIC_RESTART_COUNT=0).items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv('MAX_RESTARTS', '0')
    assert restart_store() == {}
    monkeypatch.setenv('MAX_RESTARTS', '1')
    first = restart_store()['store']
    first.set('address', 'of the first')
    assert restart_store()['store'].check(['address'])
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    again = restart_store()
    assert not again['store'].check(['address']) and (again['rank'], again['world_size']) == (0, 1)


@pytest.fixture
def environment(monkeypatch):
    """Sets mmdetection's variables, and no others."""

    def set_variables(**variables) -> None:
        for name in ('PORT', 'NNODES', 'NODE_RANK', 'MASTER_ADDR'):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    return set_variables


def test_on_one_machine_a_free_port_is_taken(environment):
    environment()
    assert '--standalone' in find_rendezvous()


def test_several_machines_are_told_what_is_missing(environment):
    environment(NNODES=2)
    with pytest.raises(SettingError, match='NNODES=2 needs NODE_RANK and MASTER_ADDR: on each machine'):
        find_rendezvous()
    environment(NNODES=2, NODE_RANK=2, MASTER_ADDR='a')
    with pytest.raises(SettingError, match='NODE_RANK=2 .* must be a whole number from 0 to 1'):
        find_rendezvous()
    environment(NNODES='two')
    with pytest.raises(SettingError, match='NNODES=two in the environment must be'):
        find_rendezvous()
    environment(NNODES=2, NODE_RANK=1, MASTER_ADDR='10.0.0.1', PORT=1234)
    assert find_rendezvous() == ['--nnodes=2', '--node-rank=1', '--master-addr=10.0.0.1', '--master-port=1234']


def test_a_port_that_is_in_use_is_named(environment):
    with socket.create_server(('', 0)) as taken:
        port = taken.getsockname()[1]
        environment(PORT=port)
        with pytest.raises(SettingError, match=f'port {port} cannot be used .*: give another PORT, or none'):
            find_rendezvous()


@pytest.mark.parametrize('launcher, variable', list(train.RESTARTS.items()))
def test_a_run_that_is_started_again_resumes_and_not_from_another_runs_checkpoint(
    tmp_path, monkeypatch, launcher, variable
):
    cfg = Config(dict(work_dir=str(tmp_path)))
    args = argparse.Namespace(launcher=launcher, resume=None)
    monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv('MAX_RESTARTS', '1')
    train.apply_restarts(cfg, args)
    assert args.resume is None
    line_runner(tmp_path, launcher, 1).train()
    with pytest.raises(SettingError, match=f'after a restart this run would go on from {tmp_path}/epoch_1.pth'):
        train.apply_restarts(cfg, args)
    train.apply_restarts(cfg, argparse.Namespace(launcher=launcher, resume='auto'))
    monkeypatch.setenv(variable, '1')
    train.apply_restarts(cfg, args)
    assert args.resume == 'auto'


@pytest.fixture
def start(tmp_path):
    """Starts ``dist_train.sh`` in the background; its output goes to a file: a pipe would fill up."""
    processes = []

    def run(*args, prefix=(), **variables) -> subprocess.Popen:
        path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
        environ = {**os.environ, 'PATH': path, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
        log = tmp_path / f'said by {len(processes)}'
        with log.open('w') as stream:
            process = subprocess.Popen(
                [*prefix, 'bash', str(ROOT / 'tools/dist_train.sh'), *map(str, args)],
                cwd=tmp_path,
                env=environ | {name: str(value) for name, value in variables.items()},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        process.log = log
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.terminate()
        process.wait(60)


def output(process: subprocess.Popen, code: int = 0) -> str:
    """What a run said, once it has ended, with this code."""
    process.wait(400)
    said = process.log.read_text()
    assert process.returncode == code, said[-3000:]
    return said


def flags(digits: Path, work_dir: Path, *options: str) -> list:
    common = ('--data-root', digits / 'ADEChallengeData2016', '--work-dir', work_dir)
    return [*common, '--cfg-options', *ALONE, *options]


@pytest.mark.slow
def test_processes_make_the_gradients_and_the_evaluation_of_one(start, digits, tmp_path):
    """Of SGD's first step the weights tell the gradient. 5 images are not shared equally by 2 or 4 processes."""
    ends, scores = {}, {}
    for processes in (1, 2, 4):
        work_dir = tmp_path / f'of {processes}'
        options = [
            'optim_wrapper.optimizer._delete_=True',
            'optim_wrapper.optimizer.type=SGD',
            'optim_wrapper.optimizer.lr=0.1',
            'optim_wrapper.clip_grad=None',
            'param_scheduler=None',
            'train_cfg.max_epochs=1',
            f'train_dataloader.batch_size={4 // processes}',
            'train_dataloader.dataset.indices=4',
            'val_dataloader.batch_size=1',
            'val_dataloader.dataset.indices=5',
        ]
        said = output(start(SEGMENTER, processes, *flags(digits, work_dir, *options)))
        assert 'Epoch(val) [1]' in said
        ends[processes] = torch.load(work_dir / 'epoch_1.pth', weights_only=True)['state_dict']
        lines = next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
        scores[processes] = json.loads(lines[-1])
    for processes in (2, 4):
        for key, value in ends[1].items():
            torch.testing.assert_close(ends[processes][key], value, rtol=1e-5, atol=1e-6, msg=key)
        assert scores[processes]['mIoU'] == scores[1]['mIoU'] and scores[processes]['aAcc'] == scores[1]['aAcc']


@pytest.mark.slow
def test_a_killed_process_is_named_and_with_restarts_the_run_resumes(start, digits, tmp_path):
    options = flags(digits, tmp_path / 'work', 'train_cfg.max_epochs=40', 'train_cfg.val_interval=100')
    process = start(SEGMENTER, 2, *options, '--max-restarts', 1)
    for kill in (1, 2):
        rank = wait_for_rank(process, tmp_path / 'work', starts=kill)
        began = time.monotonic()
        os.kill(rank, signal.SIGKILL)
    said = output(process, 137)
    assert time.monotonic() - began < 60
    assert 'resumed epoch: ' in said
    last = said.splitlines()[-1]
    assert last.startswith('dist_train.sh: rank ') and 'was killed by SIGKILL, and the run with it' in last


@pytest.mark.slow
def test_one_process_goes_on_from_two_and_ends_equal_up_to_rounding(start, digits, tmp_path):
    options = ['train_dataloader.batch_size=2', 'model.backbone.drop_path_rate=0.0']
    options += ['train_cfg.max_epochs=2', 'train_dataloader.dataset.indices=8', 'val_dataloader.dataset.indices=2']
    output(start(SEGMENTER, 2, *flags(digits, tmp_path / 'two', *options)))
    (tmp_path / 'one').mkdir()
    shutil.copy(tmp_path / 'two' / 'epoch_1.pth', tmp_path / 'one')
    said = output(start(SEGMENTER, 1, '--resume', *flags(digits, tmp_path / 'one', *options)))
    assert 'world_size: 2 -> 1 (equal up to rounding' in said and 'Epoch(train) [2][2/2]' in said
    ends = ('two/epoch_1.pth', 'two/epoch_2.pth', 'one/epoch_2.pth')
    before, two, one = (torch.load(tmp_path / name)['state_dict']['decode_head.conv_seg.weight'] for name in ends)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
    assert (two - before).abs().max() > 1e-4


def log_of(work_dir: Path) -> str:
    return max(work_dir.glob('*/*.log')).read_text()


def wait_for_rank(process: subprocess.Popen, work_dir: Path, starts: int) -> int:
    """The process number of a rank that trains, once the run was started so often and has saved a checkpoint."""
    deadline = time.monotonic() + 200
    while len(list(work_dir.glob('*/vis_data/scalars.json'))) < starts or not list(work_dir.glob('epoch_*.pth')):
        assert process.poll() is None, process.log.read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    return next(member.pid for member in family if member.environ().get('RANK') == '1')


@contextmanager
def two_machines():
    """Two network namespaces with addresses of their own, joined by a cable: what runs a command in each."""
    names = [f'pvt{os.getpid()}_{i}' for i in (0, 1)]
    cables = [f'v{os.getpid()}{i}'[-12:] for i in (0, 1)]

    def ip(*args: str) -> None:
        subprocess.run(['ip', *args], check=True)

    try:
        for name in names:
            ip('netns', 'add', name)
        ip('link', 'add', cables[0], 'type', 'veth', 'peer', 'name', cables[1])
        for i, (name, cable) in enumerate(zip(names, cables)):
            ip('link', 'set', cable, 'netns', name)
            ip('-n', name, 'addr', 'add', f'10.99.0.{i + 1}/24', 'dev', cable)
            ip('-n', name, 'link', 'set', cable, 'up')
            ip('-n', name, 'link', 'set', 'lo', 'up')
        yield [
            (('ip', 'netns', 'exec', name), f'10.99.0.{i + 1}', cable)
            for i, (name, cable) in enumerate(zip(names, cables))
        ]
    finally:
        for name in names:
            subprocess.run(['ip', 'netns', 'del', name], check=False)


def may_make_networks() -> bool:
    """Whether this user may make network namespaces: root of a machine, not of every container."""
    if os.geteuid() or not shutil.which('ip'):
        return False
    made = subprocess.run(['ip', 'netns', 'add', f'pvt{os.getpid()}'], capture_output=True).returncode == 0
    if made:
        subprocess.run(['ip', 'netns', 'del', f'pvt{os.getpid()}'], check=True)
    return made


@pytest.mark.slow
def test_two_machines_train_together(start, digits, tmp_path):
    options = flags(digits, tmp_path / 'work', 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=4')
    if may_make_networks():
        with two_machines() as machines:
            said = train_on(start, machines, options)
    else:  # two addresses of one machine
        said = train_on(start, [((), '127.0.0.1', 'lo'), ((), '127.0.0.1', 'lo')], options)
    assert 'Epoch(train) [1][2/2]' in said  # 16 images, 8 a step


def train_on(start, machines: list[tuple], options: list) -> str:
    with socket.socket() as free:
        free.bind(('', 0))
        port = free.getsockname()[1]
    processes = [
        start(
            SEGMENTER,
            1,
            *options,
            prefix=prefix,
            NNODES=2,
            NODE_RANK=rank,
            MASTER_ADDR=machines[0][1],
            PORT=port,
            GLOO_SOCKET_IFNAME=interface,
        )
        for rank, (prefix, _, interface) in enumerate(machines)
    ]
    return [output(process) for process in processes][0]
