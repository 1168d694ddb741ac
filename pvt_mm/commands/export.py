"""Writes a trained model as ONNX, OpenVINO or a torch.export program: ``export.py CONFIG CHECKPOINT --to onnx``.

The file takes raw images; mean and standard deviation, decoding and non-maximum suppression are inside. It is compared
with the model in PyTorch as soon as it is written. docs/deployment.md says what the file takes and returns.
"""

import argparse
import logging
import re
from contextlib import nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import mmcv
import numpy as np
from mmengine.config import Config, DictAction
from mmengine.registry import MODELS, init_default_scope
from mmengine.utils import to_2tuple
from torch import nn

from ..errors import SettingError
from ..export.files import FORMATS, check_packages, load, trace, write
from ..export.graphs import Graph, build_graph
from ..export.verify import compare, make_batches
from ..weights.loading import find_state_dict, load_weights
from ..weights.reading import read_checkpoint
from .backbones import check_backbones
from .launch import CONFIG_HELP, check_checkpoint, find_dataset, find_datasets, one_line_errors, read_config
from .predict import find_meta
from .sources import IMAGES, find_sources

NUM_IMAGES = 3  # to compare on
# How images are loaded by a runner that reads them by OpenCV.
READ = dict(imdecode_backend=('cv2',), color_type=('color', 'grayscale', 'unchanged'))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument('checkpoint', help='checkpoint file or address')
    parser.add_argument('--to', choices=list(FORMATS), default='onnx', help='format (default: onnx)')
    parser.add_argument('--out', help="file to write (default: the checkpoint's name with .onnx, .xml or .pt2)")
    parser.add_argument('--part', choices=('model', 'backbone'), default='model', help='backbone: its maps alone')
    parser.add_argument(
        '--output', choices=('labels', 'logits'), default='labels', help='what a segmenter returns (default: labels)'
    )
    parser.add_argument(
        '--images', nargs='+', help="images to compare on, files or folders (default: the config's test images)"
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help="settings that override the config's")
    return parser.parse_args()


def load_model(cfg: Config, checkpoint: str) -> tuple[nn.Module, dict]:
    """The model of a config with the weights of a checkpoint, in evaluation mode, and what the checkpoint holds.

    Raises:
        CheckpointError: The checkpoint cannot be read, or does not hold all weights of the model.
    """
    check_backbones(cfg)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    read = read_checkpoint(checkpoint)
    model = MODELS.build(cfg.model)
    load_weights(model, find_state_dict(read, checkpoint), checkpoint, strict=True)
    return model.eval(), read


def find_resize(cfg: Config) -> list[list]:
    """How the test pipeline resizes images, step by step.

    A step is ['fit', width, height], ['stretch', width, height], ['multiple', number], ['short', side], ['long', side]
    or ['crop', width, height]. What is not OpenCV's bilinear interpolation ends in the names of library and kind, as
    ['short', 256, 'pillow', 'bicubic'].

    Raises:
        SettingError: It loads or changes images in a way that no runner outside of PyTorch knows, or each of several
            datasets in another.
    """
    dataset = find_dataset(cfg, 'test_dataloader')
    steps, pipeline = [], list(dataset.get('pipeline') or ())
    if dataset and dataset is not (outer := cfg.test_dataloader.dataset):
        pipeline += outer.get('pipeline') or ()  # of a wrapper that mixes images
    for step in pipeline:
        kind = step['type'] if isinstance(step['type'], str) else step['type'].__name__
        kind = kind.rpartition('.')[2]
        if kind == 'LoadImageFromFile':
            for key, values in READ.items():
                if step.get(key) not in (None, *values):
                    raise SettingError(
                        f'the test pipeline loads images with {key}={step[key]!r}, and a runner outside of PyTorch '
                        'reads them as OpenCV does: leave it out of test_dataloader.dataset.pipeline'
                    )
            continue
        how = [step.get('backend') or 'cv2', step.get('interpolation', 'bilinear')]
        how = [] if how == ['cv2', 'bilinear'] else how
        if kind == 'Resize' and step.get('scale'):
            steps.append(['fit' if step.get('keep_ratio') else 'stretch', *to_2tuple(step['scale']), *how])
        elif kind == 'ResizeToMultiple' and not how:
            steps.append(['multiple', step.get('size_divisor', 32)])
        elif kind == 'ResizeEdge' and step.get('edge', 'short') in ('short', 'long'):
            steps.append([step.get('edge', 'short'), step['scale'], *how])
        elif kind == 'CenterCrop' and not step.get('auto_pad'):
            steps.append(['crop', *to_2tuple(step['crop_size'])])
        elif not kind.startswith('Pack') and not re.fullmatch(r'Load\w*Annotations?', kind):
            raise SettingError(
                f'the test pipeline has a {kind}, which a runner outside of PyTorch does not know: leave it out of '
                'test_dataloader.dataset.pipeline, or do it yourself before the file gets the image'
            )
    return steps


def resize(image: np.ndarray, steps: list[list]) -> np.ndarray:
    """An image (H, W, C) resized as :func:`find_resize` says."""
    channels = image.shape[2]
    for kind, *step in steps:
        numbers = [value for value in step if not isinstance(value, str)]
        how = dict(zip(('backend', 'interpolation'), step[len(numbers) :]))
        image = image[..., 0] if image.shape[2:] == (1,) else image  # pillow takes grey images so
        sides = image.shape[1::-1]
        if kind == 'fit':
            image = mmcv.imrescale(image, tuple(numbers), **how)
        elif kind == 'stretch':
            image = mmcv.imresize(image, tuple(numbers), **how)
        elif kind == 'multiple':
            image = mmcv.imresize_to_multiple(image, *numbers, scale_factor=1)
        elif kind == 'crop':
            x, y = (max(0, round((side - length) / 2)) for side, length in zip(sides, numbers))
            image = image[y : y + numbers[1], x : x + numbers[0]]
        else:
            edge = min(sides) if kind == 'short' else max(sides)
            image = mmcv.imresize(image, tuple(int(numbers[0] * side / edge) for side in sides), **how)
    return image.reshape(*image.shape[:2], channels)


def describe(cfg: Config, checkpoint: dict, graph: Graph) -> dict:
    """What a runner needs to know, for the file."""
    meta = dict(task=graph.task, outputs=list(graph.outputs), resize=find_resize(cfg))
    if graph.task != 'maps':
        # folders of classes have names in the checkpoint of a training only
        with suppress(SettingError) if graph.task == 'classification' else nullcontext():
            meta |= find_meta(cfg, checkpoint)
    if 'masks' in graph.outputs:
        meta['mask_thr'] = graph.mask_thr
    channels = f'{graph.channels}), ' + {1: 'grey', 3: 'BGR'}.get(graph.channels, 'all channels')
    return meta | dict(
        input=f'uint8 (batch, height, width, {channels} as OpenCV reads, resized as resize says',
        channels=graph.channels,
        min_size=graph.min_size,
        fixed_size=graph.is_fixed,
        mean=graph.mean.flatten().tolist(),
        std=graph.std.flatten().tolist(),
        to_rgb=graph.to_rgb,
        pad_to_multiple=graph.divisor,
        model=type(graph.model).__name__,
        config=Path(cfg.filename).name,
    )


def find_images(cfg: Config, given: list[str] | None, steps: list[list], graph: Graph) -> list[np.ndarray]:
    """Images to compare on, resized: those given, those of the test dataset, or noise where that tells as much.

    Raises:
        SettingError: There are none.
    """
    places = [source.place for source in find_sources(given)] if given else _test_images(cfg)
    if places:
        images = [resize(_read_image(place, graph.channels), steps) for place in places[:NUM_IMAGES]]
    elif graph.task == 'detection':
        raise SettingError(
            'no image to compare PyTorch and the file on: give some that show objects of the classes, --images DIR'
        )
    else:
        images = [np.random.default_rng(0).integers(0, 256, (*graph.min_size, graph.channels), dtype=np.uint8)]
    for image in images:
        if graph.is_fixed and image.shape[:2] != graph.min_size or np.any(image.shape[:2] < np.array(graph.min_size)):
            exactly = 'exactly' if graph.is_fixed else 'at least'
            raise SettingError(
                f'an image of {image.shape[0]}x{image.shape[1]} px, and the model takes {exactly} '
                f'{graph.min_size[0]}x{graph.min_size[1]}: resize in test_dataloader.dataset.pipeline'
            )
    return images


def _read_image(place: str, channels: int) -> np.ndarray:
    """An image (H, W, C)."""
    image = cv2.imread(place, {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels, cv2.IMREAD_UNCHANGED))
    if image is None:
        raise SettingError(f'{place} is no image that OpenCV reads: --images takes image files')
    image = image.reshape(*image.shape[:2], -1)
    if image.shape[2] != channels:
        raise SettingError(f'{place} has {image.shape[2]} channels, and the model takes {channels}')
    return image


def _test_images(cfg: Config) -> list[str]:
    for dataset in find_datasets(cfg, 'test_dataloader'):
        for prefix in (dataset.get('data_prefix') or {}).values():
            folder = Path(dataset.get('data_root') or '', prefix)
            images = sorted(str(path) for path in folder.glob('*') if path.suffix.lower() in IMAGES)
            if images:
                return images
    return []


@one_line_errors
def main() -> None:
    args = parse_args()
    check_packages(args.to)
    cfg = read_config(args.config, args.cfg_options)
    check_checkpoint(args.checkpoint)
    path = Path(args.out or Path(args.checkpoint).with_suffix(FORMATS[args.to][0]).name)
    if path.suffix != FORMATS[args.to][0]:
        raise SettingError(f'--out {path}: a file of --to {args.to} ends in {FORMATS[args.to][0]}')
    model, checkpoint = load_model(cfg, args.checkpoint)
    graph = build_graph(model, args.part, args.output).eval()
    meta = describe(cfg, checkpoint, graph)
    images = find_images(cfg, args.images, meta['resize'], graph)
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder:  # under its name only what is known to be right
        write(trace(graph), graph, meta, args.to, Path(folder, path.name))
        run, _ = load(Path(folder, path.name))
        batches = list(make_batches(images, graph))
        differences = compare(model, graph, run, batches)
        sizes = {images.shape[1:3] for images in batches}
        number = f'{differences[0].number // 2} objects in ' if graph.task == 'detection' else ''
        print(f'compared with PyTorch: {number}{sum(map(len, batches))} images of {len(sizes)} sizes')
        print('\n'.join(map(str, differences)))
        if not differences[0].number:
            raise SettingError(
                f'{path} was not compared and not written: the model found nothing in the images; give --images that '
                'show objects, or lower score_thr in model.test_cfg'
            )
        if not all(difference.is_small for difference in differences):
            raise SettingError(f'{path} was not written: it differs from the model in PyTorch by more than it may')
        written = [part.replace(path.parent / part.name) for part in sorted(Path(folder).iterdir())]
    print(f'{" and ".join(map(str, written))}: {sum(part.stat().st_size for part in written) / 2**20:.1f} MB')
