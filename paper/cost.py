"""The paper's cost study and Figure 5: multiply-adds counted, time and memory measured on this machine."""

import json
import platform
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from benchmarks.measure import default_device, hardware, in_own_process, interleaved, peak_memory

from .rows import Row, paper, table_rows
from .run import count_gflops, read_records
from .tables import format_cell, markdown

BACKBONES = {
    'PVT-Small': dict(type='PVT', arch='small'),
    'ResNet50': dict(type='mmdet.ResNet', depth=50),
    'ViT-Small/16': dict(type='ColumnarViT', patch_size=16),
}
SIDES = (224, 320, 416, 512, 640, 800, 1024)


def measure(model: dict, scope: str, shape: tuple[int, int], runs: int = 5) -> dict:
    """Times a model on one random image, in a new process.

    Args:
        model: Its config; a detector is timed with its post-processing.
        scope: The registry scope of the config, 'mmdet' or 'mmseg'.
        shape: The image's (height, width) in pixels.
        runs: Timed runs, after one to warm up.

    Returns:
        ``ms``, the median time, and ``mib``, the peak memory beyond the loaded model.
    """
    return in_own_process(_measure, model, scope, shape, runs)


@torch.no_grad()
def _measure(settings: dict, scope: str, shape: tuple[int, int], runs: int) -> dict:
    init_default_scope(scope)
    device = default_device()
    model = MODELS.build(settings).to(device)
    model.eval()
    image = torch.randn(1, 3, *shape, device=device)
    arguments = {}
    if hasattr(model, 'extract_feat'):
        from mmdet.structures import DetDataSample

        sample = DetDataSample(
            metainfo=dict(
                img_shape=shape,
                ori_shape=shape,
                batch_input_shape=shape,
                pad_shape=shape,
                scale_factor=(1.0, 1.0),
                img_id=0,
            )
        )
        arguments = dict(data_samples=[sample], mode='predict')
    step = partial(model, image, **arguments)
    mib = peak_memory(step, device)
    return dict(ms=round(median(interleaved({'model': step}, device, runs)['model']), 1), mib=round(mib))


def measure_cost(out: Path) -> None:
    """The cost study (Section 5.5): multiply-adds and time of RetinaNet, in ``cost_time.json`` and ``cost_time.md``."""
    records, measured, lines = read_records(out), {}, []
    for row in table_rows('cost'):
        cfg = row.load()
        gflops = round(count_gflops(cfg, row.shape), 1)
        cfg.model.backbone.init_cfg = None
        measured[row.name] = dict(measure(cfg.model.to_dict(), cfg.default_scope, tuple(row.shape)), gflops=gflops)
        lines.append(
            [
                f'{row.title} ({row.name})',
                str(row.shape[0]),
                f'{row.gflops} / {gflops}',
                f'{row.ms} / {measured[row.name]["ms"]:g}',
                format_cell('AP', row, records.get(row.key)),
            ]
        )
    head = ['row', 'short side', 'GFLOPs (paper / counted)', 'ms (paper, V100 / measured)', 'AP (paper / measured)']
    title = paper()['tables']['cost']['title']
    text = f'# {title}\n\n{markdown(head, lines)}\nMeasured on {hardware()}, batch 1, float32, {date.today()}.\n'
    out.mkdir(parents=True, exist_ok=True)
    _write(out / 'cost_time.json', measured)
    (out / 'cost_time.md').write_text(text)
    print(text)


def draw_fig5(out: Path) -> None:
    """Figure 5: cost of the backbones against the image size, in ``fig5.json`` and ``fig5.png``."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figures = {}
    for name, settings in BACKBONES.items():
        figures[name] = {}
        for side in SIDES:
            cfg = Config(dict(model=settings, default_scope='mmdet'))
            gflops = round(count_gflops(cfg, (side, side)), 2)
            figures[name][side] = dict(measure(settings, 'mmdet', (side, side)), gflops=gflops)
            print(f'{name} at {side}x{side}: {figures[name][side]}', flush=True)
    out.mkdir(parents=True, exist_ok=True)
    _write(out / 'fig5.json', figures)
    panels = {'gflops': 'multiply-adds (G)', 'ms': 'ms per image', 'mib': 'peak memory (MiB)'}
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout='constrained')
    for axis, (key, label) in zip(axes, panels.items()):
        for name, sides in figures.items():
            axis.plot(list(sides), [values[key] for values in sides.values()], marker='o', markersize=3, label=name)
        axis.set(xlabel='image side (px)', ylabel=label, ylim=(0, None))
    axes[0].legend()
    figure.suptitle(f'Backbones, batch 1, float32: {hardware()}', fontsize=9)
    figure.savefig(out / 'fig5.png', dpi=110)
    print(f'written to {out / "fig5.png"}')


@torch.no_grad()
def time_backbones(rows: list[Row], shape: tuple[int, int] = (800, 1216), runs: int = 3) -> dict[str, float]:
    """The median ms of each row's backbone on one image of (height, width) pixels, all run in turn."""
    init_default_scope('mmdet')
    image, steps = torch.randn(1, 3, *shape, device=default_device()), {}
    for row in rows:
        settings = row.load().model.backbone
        settings.pop('init_cfg', None)
        model = MODELS.build(settings).to(image.device)
        model.eval()  # returns nothing of mmdet's ResNet
        steps[row.title] = partial(model, image)
    times = interleaved(steps, default_device(), runs)
    return {title: round(median(ms), 1) for title, ms in times.items()}


def draw_speed(out: Path) -> None:
    """The papers' AP of RetinaNet, 1x, against the time of the backbones, in ``speed.json`` and ``speed.png``."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    rows = [row for table in ('table2', 'v2_retinanet') for row in table_rows(table) if row.schedule == '1x']
    times = time_backbones(rows)
    figures = {
        row.title: dict(ap=row.figures[0], ms=times[row.title], relative=round(times[row.title] / times['ResNet50'], 3))
        for row in rows
    }
    out.mkdir(parents=True, exist_ok=True)
    _write(out / 'speed.json', figures)
    figure, axis = plt.subplots(figsize=(8, 5), layout='constrained')
    for family in dict.fromkeys(row.family for row in rows):
        own = [row for row in rows if row.family == family]
        points = sorted((figures[row.title]['relative'], row.figures[0], row.title) for row in own)
        axis.plot([x for x, *_ in points], [y for _, y, _ in points], marker='o', markersize=4, label=family)
        for x, y, title in points:
            axis.annotate(title, (x, y), xytext=(4, -9), textcoords='offset points', fontsize=7)
    axis.set(xlabel="time of the backbone's forward pass at 800x1216, ResNet50 = 1", ylabel='AP of RetinaNet 1x, paper')
    axis.margins(x=0.1)  # for the names beside the points
    axis.set(xlim=(0, None))
    axis.legend()
    figure.suptitle(f'One image, float32, backbones run in turn: {hardware()}', fontsize=9)
    figure.savefig(out / 'speed.png', dpi=110)
    print(f'written to {out / "speed.png"}')


def _write(path: Path, figures: dict) -> None:
    path.write_text(
        json.dumps(
            dict(
                figures=figures,
                hardware=hardware(),
                torch=torch.__version__,
                python=platform.python_version(),
                date=str(date.today()),
            ),
            indent=1,
        )
        + '\n'
    )
