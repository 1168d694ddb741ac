"""Runs tools in processes that begin with all libraries imported, which takes 10 s of a core otherwise."""

import os
import runpy
import subprocess
import sys
from multiprocessing import get_context
from tempfile import NamedTemporaryFile

import torch

from tests.common import ROOT

CONTEXT = get_context('forkserver')
CONTEXT.set_forkserver_preload(
    ['mmdet.datasets', 'mmdet.evaluation', 'mmdet.models', 'mmdet.visualization', 'mmseg.datasets', 'mmseg.evaluation']
    + ['mmseg.models', 'mmseg.visualization', 'pvt_mm.commands.train', 'pvt_mm.commands.test']
)


def _become(name: str, args: list[str], env: dict[str, str], stdout: str, stderr: str) -> None:
    """What the process does: it is ``python tools/NAME`` or ``python -m NAME``, and prints to two files."""
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    if name.endswith('.py'):
        path = ROOT / 'tools' / name
        sys.argv, sys.path[0] = [str(path), *args], str(path.parent)
        runpy.run_path(str(path), run_name='__main__')
    else:
        sys.argv, sys.path[0] = [name, *args], str(ROOT)
        runpy.run_module(name, run_name='__main__', alter_sys=True)


class Forked:
    """A tool's process, with what is used of :class:`subprocess.Popen`; the arguments are those of ``_become``."""

    def __init__(self, name: str, args: list[str], env: dict[str, str], stdout: str, stderr: str):
        self.process = CONTEXT.Process(target=_become, args=(name, args, env, stdout, stderr))
        self.process.start()
        self.pid = self.process.pid

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return self.process.exitcode


def run_forked(name: str, args: list[str], env: dict[str, str], timeout: float) -> subprocess.CompletedProcess:
    """As :func:`subprocess.run` with ``text`` and ``capture_output``.

    Args:
        name: The file of a tool, or a module of the repository.
        args: Its arguments.
        env: The environment.
        timeout: Seconds after which it is killed, and subprocess.TimeoutExpired raised.
    """
    with NamedTemporaryFile('r') as stdout, NamedTemporaryFile('r') as stderr:
        code = Forked(name, args, env, stdout.name, stderr.name).wait(timeout)
        return subprocess.CompletedProcess([name, *args], code, stdout.read(), stderr.read())
