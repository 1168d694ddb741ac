"""Times and weighs a PVT beside its other implementations and ResNet50: ``python -m benchmarks.backbone forward``.

A time is the median of runs that take turns, after one to warm up; the peak memory of each model is the median of
processes of its own. Writes benchmarks/results/backbone_<work>_<device>_<precision>.json, .md and .png;
``--arch b2`` backbone_b2_<work>...
"""

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config

from paper.tables import markdown
from pvt_mm.commands.get_flops import build_model, count_multiply_adds
from pvt_mm.commands.launch import one_line_errors
from pvt_mm.errors import SettingError
from pvt_mm.models.archs import ARCHS

from .common import CELLS, Images, autocast, cells, compare, compiled, keep, parse, parse_images
from .measure import hardware, product_rate
from .peers import FAMILIES, OURS, PEERS, peers_of

TITLES = {
    arch: f'PVT-{arch.title()}' if arch in ARCHS else f'PVTv2-{arch.title().replace("_", "-")}' for arch in FAMILIES
}
WORK = {'forward': 'forward', 'training': 'forward and backward'}
SIZES = ['224x224', '512x512', '640x640', '800x1216', '1344x800', '2048x2048']
BATCHES = dict(cpu=(1, 2), cuda=(1, 2, 4, 8, 16))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', choices=WORK, help='training is forward and backward')
    parser.add_argument(
        '--images',
        nargs='+',
        help='batch x height x width, as 2x800x1216; default: six sizes, batches 1 and 2 on a CPU, 1 to 16 on a GPU',
    )
    parser.add_argument('--arch', choices=FAMILIES, default='small', help='a size of PVT or PVTv2 (default: small)')
    parser.add_argument('--models', nargs='+', choices=PEERS, help=f'default: all; {OURS} must be one')
    args = parse(parser)
    args.models = args.models or peers_of(args.work, args.precision, args.arch)
    if unknown := [name for name in args.models if name not in FAMILIES[args.arch]]:
        raise SettingError(f'--models {unknown[0]}: of --arch {args.arch} there are {", ".join(FAMILIES[args.arch])}')
    if OURS not in args.models:
        raise SettingError(f'--models: {OURS} is missing, beside which the others are set')
    args.images = args.images or [f'{batch}x{size}' for batch in BATCHES[args.device] for size in SIZES]
    return args


def make_step(
    images: Images, device: str, precision: str, name: str, work: str, compile: bool = False, arch: str = 'small'
) -> Callable[[], None]:
    """A model's pass over random images."""
    with torch.device(device):  # a card draws the weights in no time
        model = FAMILIES[arch][name]()
    model.train(work == 'training')
    batch = torch.randn(images, device=device)

    def forward() -> None:
        with torch.no_grad(), autocast(device, precision):
            model(batch)

    def training() -> None:
        with autocast(device, precision):
            maps = model(batch)
        sum(m.float().square().mean() for m in maps).backward()
        model.zero_grad()

    step = forward if work == 'forward' else training
    return compiled(model, step) if compile else step


def count(images: Images, arch: str) -> dict[str, float]:
    """The multiply-adds in 10^9 of a forward pass, attention's included, of a PVT and of ResNet50."""
    ours = dict(type='PVT' if arch in ARCHS else 'PVTv2', arch=arch)
    models = {OURS: ours, 'ResNet50': dict(type='mmdet.ResNet', depth=50)}
    return {
        name: images[0] * sum(count_multiply_adds(build_model(Config(dict(model=model))), images[2:]).values()) / 1e9
        for name, model in models.items()
    }


def measure(args: argparse.Namespace, images: Images) -> list[dict]:
    """A row for each model."""
    cases = {name: (name, args.work, args.compile, args.arch) for name in args.models}
    counts, passes = count(images, args.arch), 1 if args.work == 'forward' else 3
    rows = [dict(images=images, model=name, **row) for name, row in compare(make_step, images, cases, args).items()]
    for row in rows:
        if 'ms' in row:
            row['rate'] = 1000 * passes * counts.get(row['model'], counts[OURS]) / row['ms']
    return rows


def table(rows: list[dict], product: float) -> str:
    """The rows, each beside ours."""
    lines = []
    for row in rows:
        ours = next(r for r in rows if r['model'] == OURS and r['images'] == row['images'])
        speed = [f'{row["rate"]:.0f}', f'{row["rate"] / product:.0%}'] if 'rate' in row else ['', '']
        lines.append(['x'.join(map(str, row['images'])), row['model'], *cells(row, ours), *speed])
    return markdown(['images', 'model', *CELLS, 'G multiply-adds/s', 'of a matrix product'], lines)


def growth(rows: list[dict]) -> str:
    """By which power of the number of pixels time and memory grow at the first batch: the slope of their logarithms."""
    lines = []
    for name in dict.fromkeys(row['model'] for row in rows):
        points = points_of(rows, name)
        if len({point[0] for point in points}) > 1:
            slopes = [
                slope([math.log(point[0]) for point in points], [math.log(point[i]) for point in points])
                for i in (1, 2)
            ]
            lines.append([name, *(f'{value:.2f}' for value in slopes)])
    return markdown(['model', 'time', 'memory'], lines)


def points_of(rows: list[dict], name: str) -> list[tuple[float, float, float]]:
    """Megapixels, ms and MiB of a model at the first batch."""
    return sorted(
        (row['images'][2] * row['images'][3] / 1e6, row['ms'], row['mib'])
        for row in rows
        if row['model'] == name and row['images'][0] == rows[0]['images'][0] and 'ms' in row
    )


def slope(x: list[float], y: list[float]) -> float:
    """Of the line through the points with the least squares."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x) ** 2 for a in x)


def kernels(args: argparse.Namespace, images: Images) -> str:
    """The operators that carry the time of our work, by torch's profiler, and their shares of it."""
    step = make_step(images, args.device, args.precision, OURS, args.work, args.compile, args.arch)
    step()
    with torch.profiler.profile() as profile:
        step()
    key = f'self_{"cpu" if args.device == "cpu" else "device"}_time_total'
    times = {event.key: getattr(event, key) for event in profile.key_averages()}
    whole = sum(times.values())
    longest = sorted(times, key=times.get, reverse=True)[:8]
    return markdown(['operator', 'share'], [[name, f'{times[name] / whole:.0%}'] for name in longest])


def draw(rows: list[dict], title: str, path: Path) -> None:
    """Time and memory against the number of pixels, at the first batch."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout='constrained')
    for axis, i, label in zip(axes, (1, 2), ('ms', 'peak MiB')):
        for name in dict.fromkeys(row['model'] for row in rows):
            points = points_of(rows, name)
            axis.plot([p[0] for p in points], [p[i] for p in points], marker='o', markersize=3, label=name)
        axis.set(xlabel='megapixels', ylabel=label, ylim=(0, None))
    axes[0].legend(fontsize=7)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=110)


@one_line_errors
def main() -> None:
    args = parse_args()
    shapes = [parse_images(text) for text in args.images]
    product = product_rate(args.device, getattr(torch, args.precision))
    title = f'{TITLES[args.arch]}, {WORK[args.work]}, {args.precision}{", compiled" * args.compile}'
    name = 'backbone_' + (f'{args.arch}_' if args.arch != 'small' else '') + args.work
    rows, text = [], ''
    for images in shapes:
        rows += measure(args, images)
        text = (
            f'# {title}\n\n'
            f'A matrix product of 4096 x 4096 runs at {product:.0f} G multiply-adds/s here; '
            f'forward and backward count as three forward passes.\n\n'
            f'{table(rows, product)}'
        )
        # after each size: what ends it early leaves the sizes before
        keep(args, name, dict(arch=args.arch, work=args.work, product=product, rows=rows), text, done=False)
    largest = max(
        (row['images'] for row in rows if row['model'] == OURS and 'ms' in row), key=math.prod, default=shapes[0]
    )
    batch = shapes[0][0]
    text += (
        f'\nTime and memory grow at batch {batch} with the number of pixels to the power of\n\n{growth(rows)}\n'
        f'Where the time of ours goes at {"x".join(map(str, largest))}:\n\n{kernels(args, largest)}'
    )
    place = keep(args, name, dict(arch=args.arch, work=args.work, product=product, rows=rows), text)
    draw(rows, f'{title}, batch {batch}: {hardware(device=args.device)}', Path(f'{place}.png'))


if __name__ == '__main__':
    main()
