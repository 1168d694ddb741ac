"""Time and memory of a piece of work on this machine, and the rate that the machine itself reaches."""

import ctypes
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from statistics import median
from typing import Any

import torch

ROOT = Path(__file__).parents[1]


def default_device() -> str:
    """'cuda' where torch sees a GPU, else 'cpu'."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def hardware(gpus: int = 1, device: str | None = None) -> str:
    """The GPUs in use, or the CPU."""
    if (device or default_device()) == 'cuda':
        return f'{gpus} x {torch.cuda.get_device_name()}'
    cpuinfo = Path('/proc/cpuinfo')
    names = re.findall(r'model name\s*: (.*)', cpuinfo.read_text()) if cpuinfo.is_file() else []
    return f'CPU, {os.cpu_count()} cores ({names[0] if names else platform.machine()})'


def versions() -> dict[str, str]:
    """The versions of this package and of what it stands on; None of one that runs without being installed."""
    found = {}
    for name in ('torch', 'mmcv', 'mmengine', 'mmdet', 'mmsegmentation', 'transformers', 'pvt_mm'):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def in_own_process(function: Callable, *args) -> Any:
    """What ``function(*args)`` returns in a new process, in which no earlier work has left its memory.

    Raises:
        BrokenProcessPool: The process died.
    """
    context = get_context('spawn')
    if default_device() == 'cpu':  # CUDA does not work in a process that is forked off
        context = get_context('forkserver')
        context.set_forkserver_preload(['mmdet.models', 'mmseg.models', 'pvt_mm.models'])  # once, as it takes seconds
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *args).result()


def card() -> str | None:
    """The card's name, where this process can compute on one."""
    if default_device() == 'cpu':
        return None
    try:
        torch.ones(1, device='cuda').sum().item()
        return hardware(device='cuda')
    except RuntimeError:  # CUDA after a fork
        return None


def processes(method: str = 'forkserver') -> tuple[BaseContext, str | None]:
    """How to start processes, and the card that they see: forked ones, which have imported all, if CUDA works there.

    ``method`` is 'forkserver', or 'fork' for a process that has imported all and never computes on the card itself.

    It does where ``PYTORCH_NVML_BASED_CUDA_CHECK=1`` is set: nothing that is imported starts CUDA then.
    """
    forked = get_context(method)
    forked.set_forkserver_preload(['mmdet.models', 'mmseg.models', 'pvt_mm.commands.train', 'benchmarks.data'])
    if default_device() == 'cpu':
        return forked, None
    for context in (forked, get_context('spawn')):
        with ProcessPoolExecutor(1, context) as pool, suppress(BrokenProcessPool):
            if name := pool.submit(card).result():
                return context, name
    return forked, None


def run_main(module: str, argv: list[str], log: Path, env: dict[str, str] | None = None) -> None:
    """Runs the ``main`` of a module in this process, which is its own; what it prints goes to ``log``."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ.update(env or {})
    sys.argv = [f'{module.rpartition(".")[2]}.py', *argv]
    import_module(module).main()


def interleaved(
    steps: dict[str, Callable[[], Any]], device: str, runs: int, seconds: float = 0
) -> dict[str, list[float]]:
    """The milliseconds of each step, run in turn (A, B, C, A, B, C, ...), so that a slow moment meets them all.

    Args:
        steps: The work, by name.
        device: 'cuda' waits for the card at the end of each step.
        runs: Timed rounds, after one to warm up.
        seconds: What all rounds together take at least, by more of them: of short work a few tell little.
    """
    times = {name: [] for name in steps}
    begin, rounds = time.perf_counter(), 0
    while steps and (rounds <= runs or time.perf_counter() - begin < seconds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device == 'cuda':
                torch.cuda.synchronize()
            if rounds:
                times[name].append(1000 * (time.perf_counter() - start))
        rounds += 1
    return times


def peak_memory(step: Callable[[], Any], device: str) -> float:
    """The memory in MiB that ``step`` took at its most beyond what was in use before it: allocated on the card, or
    resident in this process (Linux)."""
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # what earlier work has freed goes back to the system
    Path('/proc/self/clear_refs').write_text('5')  # the peak starts anew
    before = process_memory('VmRSS')
    step()
    return process_memory('VmHWM') - before


def process_memory(key: str) -> float:
    """A memory figure of this process in MiB: VmRSS, in use, VmHWM, its peak, or VmData, asked of the system."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 2**10


def product_rate(device: str, dtype: torch.dtype, side: int = 4096) -> float:
    """The multiply-adds in 10^9 a second of a matrix product of ``side`` x ``side``: the median of five."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return side**3 / 1e6 / median(interleaved({'product': lambda: a @ b}, device, 5)['product'])


def commit() -> str:
    """The repository's commit, marked where files other than the kept figures differ from it."""
    git = ['git', '-C', str(ROOT)]
    try:
        name = subprocess.run(
            [*git, 'rev-parse', '--short=12', 'HEAD'], check=True, capture_output=True, text=True
        ).stdout
        kept = [':!results', ':!benchmarks/results', ':!docs/paper.md', ':!docs/performance.md']
        changed = subprocess.run(
            [*git, 'status', '--porcelain', '--', '.', *kept], check=True, capture_output=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
    return name.strip() + (' with changes' if changed.strip() else '')
