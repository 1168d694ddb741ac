"""Everything that a GPU can show, in one go: ``bash benchmarks/gpu.sh [MINUTES]``.

Runs the other benchmarks one after the other, the most valuable first, each for its share of the time at most. A part
that ends early leaves its time to those after it; one that is cut off keeps what it had measured. Writes a folder of
the date under benchmarks/results: each part's figures as it has them, and README.md, the parts and what became of them.
"""

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from paper.tables import markdown

from .measure import ROOT, commit, hardware, processes, product_rate, run_main, versions

LOGS = ROOT / 'work_dirs/gpu'
GRACE = 10  # seconds that a part has to end when it is told to


class Part(NamedTuple):
    """A benchmark with its flags.

    ``share`` is its part of the time, relative to the others'. ``tiny`` are its flags for a trial on a CPU; None where
    the trial of a part before it runs the same code. ``{coco}`` in the flags is the folder of the images.
    """

    name: str
    share: int
    module: str
    flags: str
    tiny: str | None = None


SHORT = '--runs 15 --seconds 1'
TRIAL = '--device cpu --runs 1 --seconds 0'
HEADLINE = '--systems retinanet --work testing training --batches 1 8 --train-batches 1 8 --runs 8 --seconds 1'
SIZES = '1x800x1216 8x800x1216 32x224x224'
COMPILED = f'--compile --models pvt_mm "mmdet\'s port" ResNet50 --images 8x800x1216 {SHORT}'
# The 80 real images at a third of their size, from random weights, without what makes learning slower and more robust.
LEARNING = """configs/retinanet/pvt_small_1x.py --data-root {coco} --precision bfloat16 --train-seconds 100
    --cfg-options model.backbone.init_cfg=None model.backbone.drop_path_rate=0.0 train_dataloader.batch_size=8
    train_dataloader.dataset.pipeline.2.scale=(512,320) train_dataloader.dataset.pipeline.3.prob=0.0
    optim_wrapper.optimizer.lr=2e-4 param_scheduler.0.end=100
    param_scheduler.1.milestones=[900000,950000]"""
LEARNING_TRIAL = f"""configs/retinanet/pvt_nano_digits.py --data-root {{coco}} {TRIAL} --train-seconds 0 --every 1
    --resumed 1 --cfg-options optim_wrapper.optimizer.lr=1e-3 param_scheduler.0.end=1 param_scheduler.1.end=99
    param_scheduler.1.T_max=99"""
LOADER = (
    'configs/retinanet/pvt_small_1x.py --data-root {coco} --precision bfloat16 --workers 2 8 --checked 100 --runs 3'
)
PARTS = (
    Part(
        'parity with the published code',
        40,
        'parity',
        '',
        f'--cases b0_1x100x75 {TRIAL}',
    ),
    Part(
        'RetinaNet beside ResNet50, float16',
        45,
        'detector',
        f'--precision float16 {HEADLINE}',
        f'--systems retinanet --work testing --size 64x96 {TRIAL}',
    ),
    Part(
        'backbone forward, float16',
        35,
        'backbone',
        f'forward --precision float16 --images {SIZES} {SHORT}',
        f'forward --images 1x64x64 --models pvt_mm ResNet50 {TRIAL}',
    ),
    Part('backbone training, float16', 40, 'backbone', f'training --precision float16 --images {SIZES} {SHORT}'),
    Part(
        'learning, resuming, NCCL',
        240,
        'learning',
        LEARNING,
        LEARNING_TRIAL,
    ),
    Part(
        'kernels, float16',
        25,
        'kernels',
        f'--precision float16 {SHORT}',
        f'--images 1x64x64 --work backbone,\\ training {TRIAL}',
    ),
    Part('RetinaNet beside ResNet50, bfloat16', 40, 'detector', f'--precision bfloat16 {HEADLINE}'),
    Part('RetinaNet beside ResNet50, float32', 50, 'detector', f'--precision float32 {HEADLINE}'),
    Part(
        'images/s of the loader',
        25,
        'data',
        LOADER,
        f'configs/retinanet/pvt_nano_digits.py --data-root {{coco}} --images 2 --workers 0 --checked 2 {TRIAL}',
    ),
    Part('backbone forward, compiled', 40, 'backbone', f'forward --precision float16 {COMPILED}'),
    Part('backbone training, compiled', 50, 'backbone', f'training --precision float16 {COMPILED}'),
    Part('backbone forward, float32', 30, 'backbone', f'forward --precision float32 --images {SIZES} {SHORT}'),
    Part('backbone training, float32', 30, 'backbone', f'training --precision float32 --images {SIZES} {SHORT}'),
    Part('backbone forward, bfloat16', 25, 'backbone', f'forward --precision bfloat16 --images {SIZES} {SHORT}'),
    Part('kernels, float32', 20, 'kernels', f'--precision float32 {SHORT}'),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('minutes', nargs='?', type=float, default=9, help='the time for all parts (default: 9)')
    parser.add_argument(
        '--coco', type=Path, default=Path(os.environ.get('PVT_MM_COCO', 'data/coco')), help="COCO's folder"
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path(__file__).parent / 'results' / f'{datetime.now():%Y-%m-%d_%H%M}',
        help='where results are kept (default: a folder of the date in benchmarks/results)',
    )
    parser.add_argument('--tiny', action='store_true', help='a trial of the parts on a CPU, with the smallest models')
    return parser.parse_args()


def make_quick() -> None:
    """Shortens the benchmarks of this process for a trial, whose figures mean nothing."""
    from . import backbone, common

    common.WEIGHINGS = 1
    common.in_own_process = lambda function, *args: function(*args)
    backbone.product_rate = partial(product_rate, side=64)


def work(module: str, flags: list[str], log: Path, tiny: bool) -> None:
    """Runs a benchmark in this process, which is its own; its output goes to ``log``."""
    os.setsid()  # with all that it starts it can be ended as one
    if tiny:
        make_quick()
    run_main(f'benchmarks.{module}', flags, log)


def end(process: BaseProcess, how: int) -> None:
    """Sends a signal to a process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, how)


def run(part: Part, seconds: float, context: BaseContext, args: argparse.Namespace) -> str:
    """Runs a part for ``seconds`` at most and returns what became of it."""
    flags = shlex.split(
        (part.tiny if args.tiny else part.flags).replace('{coco}', shlex.quote(str(args.coco.resolve())))
    )
    log = LOGS / f'{part.name.replace(" ", "_").replace(",", "").replace("/", "_")}.log'
    log.parent.mkdir(parents=True, exist_ok=True)
    process = context.Process(
        target=work, args=(part.module, [*flags, '--out', str(args.out.resolve())], log, args.tiny)
    )
    process.start()
    process.join(seconds)
    cut_off = process.is_alive()
    if cut_off:
        end(process, signal.SIGTERM)
        process.join(GRACE)
    end(process, signal.SIGKILL)  # what it started and left
    process.kill()
    process.join()
    if cut_off:
        return f'cut off after its {seconds:.0f} s'
    if process.exitcode == 0:
        return 'done'
    lines = log.read_text(errors='replace').strip().splitlines() if log.exists() else []
    return f'failed: {lines[-1] if lines else f"exit code {process.exitcode}"}'


def missing(part: Part, args: argparse.Namespace) -> str | None:
    """Why a part is left out."""
    if args.tiny and part.tiny is None:
        return 'left out: one before runs the same code'
    if '{coco}' in part.flags and not (args.coco / 'annotations').is_dir():
        return f'left out: no COCO in {args.coco}; name its folder with --coco'
    return None


def report(rows: Iterable[list[str]], where: str, begin: datetime) -> str:
    found = ', '.join(f'{name} {version}' for name, version in versions().items() if version)
    return (
        f'# {where}, {begin:%Y-%m-%d}\n\n`bash benchmarks/gpu.sh`: {found}, commit {commit()}.\n\n'
        f'{markdown(["part", "command", "seconds", "what became of it"], rows)}'
    )


def main() -> None:
    args = parse_args()
    begin, deadline = datetime.now(), time.monotonic() + 60 * args.minutes
    context, name = processes()
    if name is None and not args.tiny:
        sys.exit('gpu.sh: torch sees no GPU; --tiny tries the parts on a CPU')
    args.out.mkdir(parents=True, exist_ok=True)
    rows, left = [], {part.name: missing(part, args) for part in PARTS}
    for i, part in enumerate(PARTS):
        start = time.monotonic()
        shares = sum(other.share for other in PARTS[i:] if left[other.name] is None)
        outcome = left[part.name]
        if outcome is None:
            outcome = run(part, max(deadline - start, 0) * part.share / shares, context, args)
        command = f'`{part.module} {" ".join((part.tiny if args.tiny and part.tiny else part.flags).split())}`'
        rows.append([part.name, command, f'{time.monotonic() - start:.0f}', outcome])
        print(f'{part.name}: {outcome} ({rows[-1][2]} s)', flush=True)
        (args.out / 'README.md').write_text(report(rows, name or hardware(device='cpu'), begin))
    if any(row[-1].startswith('failed') for row in rows):
        sys.exit(f'gpu.sh: parts failed; their output is in {LOGS}')
    print(f'written to {args.out}')


if __name__ == '__main__':
    main()
