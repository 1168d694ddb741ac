"""The kernels that carry the time of our work, by torch's profiler: ``python -m benchmarks.kernels``.

For the backbone and for RetinaNet with it, each forward and in training. Beside them stands how long the work takes:
what its kernels leave of it, a card waits for the CPU to start the next. Writes
benchmarks/results/kernels_<device>_<precision>.json and .md.
"""

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch.autograd import DeviceType

from paper.tables import markdown
from pvt_mm.commands.launch import one_line_errors

from . import backbone, detector
from .common import digits, keep, parse, parse_images
from .measure import interleaved
from .peers import OURS

WORK = {
    'backbone, forward': partial(backbone.make_step, name=OURS, work='forward'),
    'backbone, training': partial(backbone.make_step, name=OURS, work='training'),
    'retinanet, testing': partial(detector.make_step, system='retinanet', backbone=OURS, work='testing'),
    'retinanet, training': partial(detector.make_step, system='retinanet', backbone=OURS, work='training'),
}
LONGEST = 12  # kernels in the table


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', default='2x800x1216', help='batch x height x width')
    parser.add_argument('--work', nargs='+', choices=WORK, default=list(WORK))
    return parse(parser)


def kernels(step: Callable[[], object], device: str) -> list[dict]:
    """The kernels of a step, on a CPU its operators: ``name``, ``ms`` and ``calls``, the longest first."""
    with torch.profiler.profile() as profile:
        step()
        if device == 'cuda':
            torch.cuda.synchronize()
    kind = DeviceType.CUDA if device == 'cuda' else DeviceType.CPU
    key = 'self_device_time_total' if device == 'cuda' else 'self_cpu_time_total'
    found = [
        dict(name=event.key, ms=getattr(event, key) / 1000, calls=event.count)
        for event in profile.key_averages()
        if event.device_type == kind and not event.is_user_annotation
    ]
    return sorted((row for row in found if row['ms'] > 0), key=lambda row: -row['ms'])


def table(row: dict) -> str:
    busy = sum(kernel['ms'] for kernel in row['kernels'])
    cells = [
        [f'`{kernel["name"][:90]}`', str(kernel['calls']), digits(kernel['ms']), f'{kernel["ms"] / busy:.0%}']
        for kernel in row['kernels'][:LONGEST]
    ]
    return (
        f'## {row["work"]}\n\nThe work takes {digits(row["ms"])} ms, its kernels {digits(busy)} ms.\n\n'
        f'{markdown(["kernel", "calls", "ms", "share"], cells)}'
    )


@one_line_errors
def main() -> None:
    args = parse_args()
    images, rows = parse_images(args.images), []
    for work in args.work:
        step = WORK[work](images, args.device, args.precision, compile=args.compile)
        times = interleaved({work: step}, args.device, args.runs, args.seconds)[work]
        rows.append(dict(work=work, images=images, ms=median(times), kernels=kernels(step, args.device)))
        parts = [f'# Kernels of PVT-Small at {args.images}, {args.precision}', *map(table, rows)]
        keep(args, 'kernels', dict(rows=rows), '\n'.join(parts), done=work == args.work[-1])


if __name__ == '__main__':
    main()
