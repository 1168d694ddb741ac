"""What the benchmarks share: their flags, how a piece of work is timed and weighed, and how results are kept."""

import argparse
import json
import math
import resource
import shlex
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from pathlib import Path
from statistics import median

import torch
from mmengine.model import BaseModel
from torch import nn

from pvt_mm.commands.launch import check_ops
from pvt_mm.errors import SettingError

from .measure import (
    commit,
    default_device,
    hardware,
    in_own_process,
    interleaved,
    peak_memory,
    process_memory,
    versions,
)

Images = tuple[int, int, int, int]  # (B, 3, H, W)
WEIGHINGS = 3  # on a CPU
# Makes a piece of work: of images of this shape, on this device, in this precision, by these names.
MakeStep = Callable[..., Callable[[], object]]


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Adds the flags of every benchmark and reads the command line.

    Raises:
        SettingError: The device is not there, or cannot do what is measured.
    """
    parser.add_argument('--device', choices=['cpu', 'cuda'], default=default_device())
    parser.add_argument(
        '--precision',
        choices=['float32', 'bfloat16', 'float16'],
        default='float32',
        help='float32, or what autocast computes in',
    )
    parser.add_argument('--compile', action='store_true', help='measure the models compiled, for images of any size')
    parser.add_argument('--runs', type=int, default=5, help='timed runs of each piece of work, after one to warm up')
    parser.add_argument(
        '--seconds',
        type=float,
        default=10,
        help='what the runs of all together take at least, by more of them: of short work a few tell little',
    )
    parser.add_argument(
        '--memory',
        type=float,
        default=math.inf,
        help='GiB that a piece of work may take, on a CPU; default: what is free',
    )
    parser.add_argument('--out', type=Path, default=Path(__file__).parent / 'results', help='where results are kept')
    args = parser.parse_args()
    if args.runs < 1:
        raise SettingError(f'--runs {args.runs} must be at least 1')
    if args.device == 'cuda':
        if not torch.cuda.is_available():
            raise SettingError('--device cuda: torch sees no GPU')
        check_ops()
        torch.backends.cudnn.allow_tf32 = False  # as in matrix products: float32 is float32
    return args


def parse_images(text: str) -> Images:
    """'2x800x1216', batch x height x width, as the shape of the images."""
    try:
        batch, height, width = map(int, text.split('x'))
    except ValueError:
        raise SettingError(f'{text!r} is not batch x height x width, as 2x800x1216') from None
    return batch, 3, height, width


def autocast(device: str, precision: str) -> AbstractContextManager:
    return nullcontext() if precision == 'float32' else torch.autocast(device, getattr(torch, precision))


def compiled(model: nn.Module, step: Callable[[], object]) -> Callable[[], object]:
    """Compiles ``model`` for images of any size and returns ``step``, which runs it.

    Of a detector or segmenter, each part but the data preprocessor is compiled alone. Compilation is done on return.
    """
    parts = dict(model.named_children()) if isinstance(model, BaseModel) else dict(backbone=model)
    for name, part in parts.items():
        if name != 'data_preprocessor':
            part.compile(dynamic=True)
    step()
    return step


def compare(make_step: MakeStep, images: Images, cases: dict[str, tuple], args: argparse.Namespace) -> dict[str, dict]:
    """Times pieces of work in turn, and weighs each in a process of its own.

    Args:
        make_step: Called with ``images``, the device, the precision and a case's arguments.
        images: The shape of the images.
        cases: The arguments of each piece of work, by the name that its row gets.

    Returns:
        For each name ``ms``, the median, ``fastest``, ``slowest``, and the peak memory beyond the model's, ``mib``, the
        median, ``least``, ``most``; or ``fails``, the reason.
    """
    weighed = {name: _weigh(make_step, images, args, case) for name, case in cases.items()}
    steps = {
        name: make_step(images, args.device, args.precision, *case)
        for name, case in cases.items()
        if 'mib' in weighed[name]
    }
    for name, ms in interleaved(steps, args.device, args.runs, args.seconds).items():
        weighed[name].update(ms=median(ms), fastest=min(ms), slowest=max(ms))
    steps.clear()
    torch.cuda.empty_cache()
    for name, row in weighed.items():
        print(images, name, row, flush=True)
    return weighed


def _weigh(make_step: MakeStep, images: Images, args: argparse.Namespace, case: tuple) -> dict:
    """What :func:`weigh` finds: on a card, where torch counts, in this process; on a CPU the median of several of their
    own, as the system does not count the same in each."""
    what, mib = (make_step, images, args.device, args.precision, args.memory, case), []
    for _ in range(WEIGHINGS if args.device == 'cpu' else 1):
        try:
            weighed = in_own_process(weigh, *what) if args.device == 'cpu' else weigh(*what)
        except BrokenProcessPool:
            weighed = dict(fails='fails: its process died')
        if 'fails' in weighed:
            return weighed
        mib.append(weighed['mib'])
    return dict(mib=median(mib), least=min(mib), most=max(mib))


def weigh(make_step: MakeStep, images: Images, device: str, precision: str, memory: float, case: tuple) -> dict:
    """The peak memory of a piece of work in MiB, ``mib``, or what it ``fails`` with.

    On a CPU the work gets ``memory`` GiB at most, and no more than is free, beside what its process has.
    """
    try:
        make_step((1, 3, 224, 224), device, precision, *case)()  # what is loaded once does not count
        step = make_step(images, device, precision, *case)
        if device == 'cpu':
            lines = Path('/proc/meminfo').read_text().splitlines()
            free = next(int(line.split()[1]) / 2**10 for line in lines if line.startswith('MemAvailable'))
            limit = int(2**20 * (process_memory('VmData') + min(2**10 * memory, free)))
            resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        return dict(mib=peak_memory(step, device))
    except Exception as error:  # of any kind: it is shown in the place of the figures
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
            return dict(fails='out of memory')
        return dict(fails=f'fails: {type(error).__name__}: {(str(error) or "no reason given").splitlines()[0]}')


def digits(value: float) -> str:
    """A time, which on a card can be below 10 ms."""
    return f'{value:.0f}' if value >= 100 else f'{value:.1f}'


def cells(row: dict, ours: dict) -> list[str]:
    """A row's time and memory, and, unless it is ours, how ours compare with them."""
    if 'fails' in row:
        return [row['fails'], '', '', '']
    is_peer = row is not ours and 'ms' in ours
    return [
        f'{digits(row["ms"])} ({digits(row["fastest"])} to {digits(row["slowest"])})',
        f'{row["ms"] / ours["ms"]:.2f}x' if is_peer else '',
        f'{row["mib"]:.0f} ({row["least"]:.0f} to {row["most"]:.0f})',
        f'{ours["mib"] / row["mib"]:.0%}' if is_peer else '',
    ]


CELLS = ['ms (fastest to slowest)', 'speed of ours', 'peak MiB (least to most)', 'memory of ours']


def keep(args: argparse.Namespace, name: str, figures: dict, text: str, done: bool = True) -> Path:
    """Writes ``<name>_<device>_<precision>.json`` and ``.md`` into ``args.out``, with where they come from; of compiled
    models ``<name>_<device>_<precision>_compiled``. Prints the text when all is ``done``.

    Returns:
        The path without its ending.
    """
    place = args.out / f'{name}_{args.device}_{args.precision}{"_compiled" * args.compile}'
    args.out.mkdir(parents=True, exist_ok=True)
    flags = sys.argv[1:]
    if '--out' in flags:  # the place is no part of what was measured
        at = flags.index('--out')
        del flags[at : at + 2]
    origin = dict(
        command=f'python -m benchmarks.{Path(sys.argv[0]).stem} {shlex.join(flags)}'.strip(),
        date=str(date.today()),
        device=args.device,
        precision=args.precision,
        compiled=args.compile,
        hardware=hardware(device=args.device),
        threads=torch.get_num_threads(),
        versions=versions(),
        commit=commit(),
    )
    Path(f'{place}.json').write_text(json.dumps(dict(origin, **figures), indent=1) + '\n')
    where = [origin['hardware'], f'torch {origin["versions"]["torch"]}', f'commit {origin["commit"]}', origin['date']]
    text = f'{text}\n`{origin["command"]}`: {", ".join(where)}.\n'
    Path(f'{place}.md').write_text(text)
    if done:
        print(f'\n{text}\nwritten to {place}.md')
    return place
