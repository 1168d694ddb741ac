"""tools/slurm_train.sh and slurm_test.sh on Slurm itself, with daemons of the test's own."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from tests.common import ALONE, ROOT

SLURM = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# a job that is queued again may start when its old credential has expired: after 2 minutes by default
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
# nothing that needs cgroups
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
KillWait=5
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 Gres=gpu:2 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def free_ports() -> list[int]:
    with ExitStack() as taken:
        return [taken.enter_context(socket.create_server(('', 0))).getsockname()[1] for _ in range(2)]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A cluster of this machine, with 2 cores and 2 files for cards; the environment leads to it."""
    if os.geteuid() or not all(map(shutil.which, ('munged', 'slurmctld', 'slurmd', 'sbatch'))):
        pytest.skip('needs root, and Slurm: apt-get install munge slurmctld slurmd slurm-client')
    folder = tmp_path / 'slurm'
    for name in ('state', 'spool'):
        (folder / name).mkdir(parents=True)
    for name in ('gpu0', 'gpu1'):
        (folder / name).touch()
    (folder / 'gres.conf').write_text(f'Name=gpu File={folder}/gpu[0-1]\n')
    host = socket.gethostname().partition('.')[0]
    (folder / 'slurm.conf').write_text(SLURM.format(host=host, folder=folder, ports=free_ports()))
    (folder / 'munge.key').write_bytes(secrets.token_bytes(128))
    (folder / 'munge.key').chmod(0o400)
    monkeypatch.setenv('SLURM_CONF', str(folder / 'slurm.conf'))
    files = dict(socket='munge.socket', pid_file='munge.pid', log_file='munge.log', seed_file='munge.seed')
    munge = [
        f'--{name.replace("_", "-")}={folder}/{file}' for name, file in (files | {'key_file': 'munge.key'}).items()
    ]
    daemons = []
    with (folder / 'output').open('w') as output:
        for command in (['munged', '--foreground', '--force', *munge], ['slurmctld', '-D'], ['slurmd', '-D']):
            daemons.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
            wait_for((folder / 'munge.socket').exists, 20, folder / 'output')
    try:
        wait_for(lambda: ask('sinfo', '--noheader', '--format=%T') == 'idle', 60, folder / 'slurmctld.log')
        yield
        ask('scancel', '--partition=test')
        wait_for(lambda: not ask('squeue', '--noheader'), 30, folder / 'slurmctld.log')
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


def ask(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def wait_for(happened, seconds: float, log: Path) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, log.exists() and log.read_text()[-3000:]
        time.sleep(0.2)


def call(script: str, *args, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    """A script of tools/ that has begun, with the variables for processes on two cores."""
    environ = {**os.environ, 'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'}
    environ |= dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    done = subprocess.run(
        ['bash', str(ROOT / 'tools' / script), *map(str, args)],
        cwd=cwd,
        env=environ | variables,
        text=True,
        capture_output=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


@pytest.mark.slow
def test_a_job_at_its_time_limit_saves_is_queued_again_and_ends_as_if_nothing_had_happened(slurm, digits, tmp_path):
    config = tmp_path / 'segmenter.py'
    config.write_text(
        f"""
_base_ = '{ROOT}/configs/semantic_fpn/pvt_nano_digits.py'
custom_imports = dict(imports=['pvt_mm', 'tests.dist.pause'])
custom_hooks = [dict(type='PauseHook', iteration=5)]
"""
    )
    common = ('--data-root', digits / 'ADEChallengeData2016', '--cfg-options', *ALONE)
    # 16 images: 4 steps an epoch, so that the warning comes within the second
    options = ('train_cfg.max_epochs=2', 'train_cfg.val_interval=100', 'train_dataloader.batch_size=2')
    sizes = dict(GPUS='2', GPUS_PER_NODE='2', CPUS_PER_TASK='1')
    # Slurm looks every 30 s, and warns up to 60 s too early: 15 to 75 s after the start
    limits = '--time=2 --signal=USR1@45'
    flags = (config, tmp_path / 'work', *common, *options)
    submitted = call('slurm_train.sh', 'test', 'digits', *flags, cwd=tmp_path, SRUN_ARGS=limits, **sizes)
    job = submitted.stdout.split()[-1]
    log = tmp_path / f'slurm-{job}.out'
    wait_for(lambda: log.exists() and 'Epoch(train) [2][1/4]' in log.read_text().replace('  ', ' '), 75, log)
    # meanwhile, in the pause
    call('dist_train.sh', config, 2, '--work-dir', tmp_path / 'whole', *common, *options, cwd=tmp_path)
    wait_for(lambda: not ask('squeue', '--noheader'), 180, log)
    said = log.read_text()
    assert 'SIGUSR1: training ended after 5 iterations' in said and 'resumed epoch: 1, iter: 5' in said, said[-3000:]
    ends = [torch.load(tmp_path / run / 'epoch_2.pth', weights_only=True) for run in ('whole', 'work')]
    for key, value in ends[0]['state_dict'].items():
        assert torch.equal(ends[1]['state_dict'][key], value), key
    tested = call(
        'slurm_test.sh', 'test', 'digits', config, tmp_path / 'work/epoch_2.pth', *common, cwd=tmp_path, **sizes
    )
    assert 'mIoU: ' in tested.stdout
