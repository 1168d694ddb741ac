"""A model in PyTorch and as ``pvt-mm export`` writes it: size, time, difference, and AP or mIoU on the test images:
``python -m benchmarks.export retinanet/pvt_nano_digits work_dirs/retinanet/pvt_nano_digits/epoch_4.pth``.

int8 is onnxruntime's dynamic quantisation of the ONNX file, of its matrix products or of its convolutions too. Writes
benchmarks/results/export_<system>_cpu_float32.json and .md.
"""

import argparse
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS
from mmengine.structures import InstanceData, PixelData
from onnxruntime.quantization import QuantType, quantize_dynamic

from paper.tables import markdown
from pvt_mm.commands.export import describe, load_model
from pvt_mm.commands.launch import CONFIG_HELP, check_data, one_line_errors, read_config, set_data_root
from pvt_mm.errors import SettingError
from pvt_mm.export.files import load, to_onnx, trace, write, write_onnx, write_openvino
from pvt_mm.export.graphs import build_graph
from pvt_mm.export.verify import compare, reference

from .common import keep, parse
from .measure import interleaved

PRODUCTS = ['MatMul', 'Gemm']


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument('checkpoint')
    parser.add_argument('--data-root', help="folder of the dataset, in place of the config's")
    return parse(parser)


def write_all(model: torch.nn.Module, graph: torch.nn.Module, meta: dict, folder: Path) -> dict[str, Path]:
    """The files of a model, by what the table calls them."""
    program = trace(graph)
    onnx = to_onnx(program, graph)
    paths = {'ONNX': folder / 'model.onnx', 'OpenVINO': folder / 'model.xml', 'torch.export': folder / 'model.pt2'}
    write_onnx(onnx, meta, paths['ONNX'])
    write_openvino(onnx, meta, paths['OpenVINO'])
    write(program, graph, meta, 'torch_export', paths['torch.export'])
    for name, operators in (('products', PRODUCTS), ('all', [*PRODUCTS, 'Conv'])):
        path = paths[f'ONNX, int8 {name}'] = folder / f'{name}.onnx'
        quantize_dynamic(paths['ONNX'], path, op_types_to_quantize=operators, weight_type=QuantType.QUInt8)
    return paths


def evaluate(run, dataset, evaluator: Evaluator, task: str) -> dict[str, float]:
    """The figures of a file or model on a dataset."""
    evaluator.dataset_meta = dataset.metainfo
    for data in dataset:
        sample = data['data_samples']
        found = {key: torch.from_numpy(value[0]) for key, value in run(images_of(data)).items()}
        if task == 'segmentation':
            sample.pred_sem_seg = PixelData(data=found['labels'][None])
        else:
            some = found['scores'] > 0
            factors = torch.tensor(sample.scale_factor).repeat(2)
            sample.pred_instances = InstanceData(
                bboxes=found['boxes'][some] / factors, scores=found['scores'][some], labels=found['labels'][some]
            )
        evaluator.process([sample])
    return evaluator.evaluate(len(dataset))


def images_of(data: dict) -> np.ndarray:
    return np.ascontiguousarray(data['inputs'].permute(1, 2, 0).numpy())[None]


def in_torch(model: torch.nn.Module, graph: torch.nn.Module, images: np.ndarray) -> dict[str, np.ndarray]:
    found = reference(model, graph, images)
    return found if isinstance(found, dict) else {key: value[None] for key, value in found[0].items()}


@one_line_errors
def main() -> None:
    args = parse_args()
    if args.device != 'cpu':
        raise SettingError(f'--device {args.device}: the exported files run on a CPU here')
    cfg = read_config(args.config, None)
    if args.data_root:
        set_data_root(cfg, args.data_root)
    check_data(cfg, 'test_dataloader')
    model, checkpoint = load_model(cfg, args.checkpoint)
    graph = build_graph(model).eval()
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    images = images_of(dataset[0])
    with TemporaryDirectory() as folder:
        paths = write_all(model, graph, describe(cfg, checkpoint, graph), Path(folder))
        runs = {'PyTorch': partial(in_torch, model, graph)}
        runs |= {name: load(path, torch.get_num_threads())[0] for name, path in paths.items()}
        batches = [images_of(dataset[i]) for i in range(5)]
        differences = {name: compare(model, graph, run, batches) for name, run in runs.items()}
        figures = {
            name: evaluate(run, dataset, Evaluator(cfg.test_evaluator), graph.task) for name, run in runs.items()
        }
        times = interleaved({n: partial(run, images) for n, run in runs.items()}, 'cpu', args.runs, args.seconds)
        sizes = {name: _size(path) for name, path in paths.items()}
    sizes['PyTorch'] = sum(value.nbytes for value in model.state_dict().values()) / 2**20
    figure = next(key for key in figures['PyTorch'] if key in ('coco/bbox_mAP', 'mIoU'))
    rows = [
        [
            name,
            f'{sizes[name]:.1f}',
            f'{median(times[name]):.1f}',
            ', '.join(f'{part.kind} {part.value:.2g}' for part in differences[name]) if name in paths else '',
            f'{figures[name][figure]:.4g}',
        ]
        for name in runs
    ]
    head = ['', 'MiB', 'ms an image', 'largest difference', figure.removeprefix('coco/')]
    height, width = images.shape[1:3]
    text = f'{args.config}, images of {height}x{width} px\n\n{markdown(head, rows)}'
    kept = dict(mib=sizes, ms=times)
    kept['figures'] = {n: {key: float(value) for key, value in found.items()} for n, found in figures.items()}
    kept['differences'] = {
        name: {part.kind: float(part.value) for part in parts} for name, parts in differences.items()
    }
    keep(args, f'export_{Path(cfg.filename).parent.name}', kept, text)


def _size(path: Path) -> float:
    """MiB of a file, of OpenVINO's with the weights beside it."""
    parts = [path, path.with_suffix('.bin')] if path.suffix == '.xml' else [path]
    return sum(part.stat().st_size for part in parts) / 2**20


if __name__ == '__main__':
    main()
