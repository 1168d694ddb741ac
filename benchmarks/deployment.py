"""The paper's models as ONNX files: ``python -m benchmarks.deployment data/coco/val2017``.

Each model is built by its config and written as ``pvt-mm export`` does: size, the minutes that writing takes, ms an
image beside PyTorch, and how far it is from PyTorch on the images of the folder. No trained weights are needed: the
weights are made up, the last layers' so large that scores go from 0 to 1 and every model finds something. Writes
benchmarks/results/deployment_cpu_float32.json and .md.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from paper.tables import markdown
from pvt_mm.commands.export import describe, find_images
from pvt_mm.commands.launch import one_line_errors, read_config
from pvt_mm.errors import SettingError
from pvt_mm.export.files import load, to_onnx, trace, write_onnx
from pvt_mm.export.graphs import build_graph
from pvt_mm.export.verify import compare, make_batches, reference

from .common import keep, parse
from .measure import interleaved

# the last layers of each row, and the standard deviation of their weights
ROWS = {
    'retinanet/pvt_small_1x': {'_convs': 0.03, 'retina_cls': 0.01, 'retina_reg': 0.005},
    'mask_rcnn/pvt_small_1x': {'fc_cls': 0.2, 'fc_reg': 0.01, 'rpn_cls': 0.1, 'rpn_reg': 0.01},
    'detr/pvt_small_50e': {'query_embedding': 1, 'fc_cls': 0.3},
    'semantic_fpn/pvt_small_40k': {'conv_seg.weight': 1},
    'trans2seg/pvt_small_40k': {'fc_q': 0.1, 'fc_kv': 0.1, 'pred': 1},
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', help='a folder of images')
    parser.add_argument('--rows', nargs='+', default=list(ROWS), choices=list(ROWS))
    return parse(parser)


def make_model(cfg: Config, spread: dict[str, float]) -> torch.nn.Module:
    """The model of a config, in evaluation mode, with made-up weights."""
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    for key, value in model.named_parameters():
        for part, std in spread.items():
            if part in key:
                torch.nn.init.normal_(value, std=std)
    return model.eval()


def measure(row: str, args: argparse.Namespace) -> dict:
    """One row's figures."""
    cfg = read_config(row, None)
    model = make_model(cfg, ROWS[row])
    graph = build_graph(model, output='logits').eval()  # of made-up labels many are nearly tied
    meta = describe(cfg, {}, graph)
    batches = list(make_batches(find_images(cfg, [args.images], meta['resize'], graph), graph))
    with TemporaryDirectory() as folder:
        path, start = Path(folder) / 'model.onnx', time.perf_counter()
        write_onnx(to_onnx(trace(graph), graph), meta, path)
        minutes = (time.perf_counter() - start) / 60
        run, _ = load(path, torch.get_num_threads())
        differences = compare(model, graph, run, batches)
        runs = {'PyTorch': partial(reference, model, graph, batches[0]), 'ONNX': partial(run, batches[0])}
        times = interleaved(runs, 'cpu', args.runs, args.seconds)
        mib = path.stat().st_size / 2**20
    return dict(
        image=list(batches[0].shape[1:3]),
        mib=mib,
        minutes=minutes,
        ms={name: median(values) for name, values in times.items()},
        differences={part.kind: [float(part.value), int(part.number)] for part in differences},
        is_equal=all(part.is_small for part in differences),
    )


def table(results: dict[str, dict]) -> str:
    rows = [
        [
            row,
            'x'.join(map(str, found['image'])),
            f'{found["mib"]:.0f}',
            f'{found["minutes"]:.1f}',
            f'{found["ms"]["PyTorch"]:.0f}',
            f'{found["ms"]["ONNX"]:.0f}',
            ', '.join(f'{kind} {value:.2g}' for kind, (value, _) in found['differences'].items()),
            str(next(iter(found['differences'].values()))[1]),
        ]
        for row, found in results.items()
    ]
    head = ['', 'image', 'MiB', 'minutes to write', 'ms in PyTorch', 'ms as ONNX', 'largest difference', 'compared']
    return markdown(head, rows)


@one_line_errors
def main() -> None:
    args = parse_args()
    if args.device != 'cpu':
        raise SettingError(f'--device {args.device}: the files run on a CPU here')
    results = {}
    for row in args.rows:
        results[row] = measure(row, args)
        keep(args, 'deployment', dict(results=results), table(results), done=row == args.rows[-1])
    off = [row for row, found in results.items() if not found['is_equal']]
    if off:
        raise SettingError(
            f'{" and ".join(off)}: the file differs from PyTorch by more than it may, or nothing was found'
        )


if __name__ == '__main__':
    main()
