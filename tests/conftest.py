import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mmcv.ops import get_compiling_cuda_version
from mmengine.registry import DefaultScope

from tests.common import ROOT
from tests.forked import run_forked

if find_spec('mmpretrain') is None:  # make test-classification runs these, in an environment of their own
    collect_ignore = ['classification']
if get_compiling_cuda_version() == 'not available':  # as the tools ask for, where torch sees a card
    os.environ['CUDA_VISIBLE_DEVICES'] = ''


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no worker is left with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker('slow')}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def own_state():
    """No test has the default scope, or what a command sets for its process, of an earlier one."""
    yield
    DefaultScope._instance_dict.clear()
    os.environ.pop('TORCH_FORCE_WEIGHTS_ONLY_LOAD', None)


@pytest.fixture(scope='session')
def digits(tmp_path_factory) -> Path:
    """A small embedded dataset: 16 training and 8 validation scenes of 96x96 px."""
    from pvt_mm.data.digits import write_digits

    root = tmp_path_factory.mktemp('data') / 'digits'
    write_digits(root, num_train=16, num_val=8, size=96)
    return root


@pytest.fixture
def on_cpu() -> dict[str, str]:
    """The environment of several processes on the CPU: no card, and a free port."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return dict(CUDA_VISIBLE_DEVICES='', PORT=str(free.getsockname()[1]))


@pytest.fixture(params=['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu'])
def device(request, monkeypatch) -> str:
    # torch's default on a card is TF32 in convolutions: maps differ by 5e-4 then
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    return request.param


def real_images(variable: str, layout: str, wanted: str) -> Path:
    """The folder that an environment variable names. Skips the test where it names none; fails where it is wrong."""
    if not os.environ.get(variable):
        pytest.skip(f'needs real images: set {variable} to a folder in the layout of {layout}')
    root = Path(os.environ[variable])
    assert (root / wanted).exists(), f'{variable}={root} has no {wanted}'
    return root


@pytest.fixture(scope='session')
def real_coco() -> Path:
    return real_images('PVT_MM_COCO', 'COCO 2017', 'annotations/instances_val2017.json')


@pytest.fixture(scope='session')
def real_ade() -> Path:
    return real_images('PVT_MM_ADE', 'ADEChallengeData2016', 'images/validation')


@pytest.fixture
def fresh_ops(monkeypatch):
    """Undoes afterwards what :func:`pvt_mm.engine.amp.keep_ops_in_float32` does."""
    from mmcv.ops.focal_loss import SigmoidFocalLossFunction
    from mmcv.ops.nms import NMSop
    from mmdet.models.roi_heads import SingleRoIExtractor

    from pvt_mm.engine.amp import keep_ops_in_float32

    for part in (SigmoidFocalLossFunction, NMSop, SingleRoIExtractor):
        monkeypatch.setattr(part, 'forward', part.forward)
    yield
    keep_ops_in_float32.cache_clear()


@pytest.fixture(scope='session')
def tool():
    """Runs a tool, or a module of the repository's, as a user would, but with the libraries imported already.

    ``tool('train.py', config, *flags)`` and ``tool('paper.reproduce', *flags)`` return the finished process;
    ``tool('dist_train.sh', ...)`` is a process as a user's.
    """

    def run(name: str, *args, check: bool = True, env: dict | None = None) -> subprocess.CompletedProcess:
        args = list(map(str, args))
        path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
        env = {**os.environ, 'PATH': path, 'OMP_NUM_THREADS': '1', **(env or {})}
        if name.endswith('.sh'):
            shell = ['bash', str(ROOT / 'tools' / name), *args]
            done = subprocess.run(shell, cwd=ROOT, text=True, capture_output=True, timeout=540, env=env)
        else:
            done = run_forked(name, args, env, timeout=540)
        assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return run


@pytest.fixture
def command(monkeypatch):
    """Runs a command in this process: ``command(predict, config, *flags)`` returns what it exits with, None if well."""

    def run(module: ModuleType, *args) -> str | int | None:
        monkeypatch.setattr(sys, 'argv', [f'{module.__name__.rpartition(".")[2]}.py', *map(str, args)])
        try:
            module.main()
        except SystemExit as end:
            return end.code

    return run
