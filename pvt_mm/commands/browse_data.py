"""Draws what the training pipeline of a config feeds in, augmentations and all: ``pvt-mm browse_data CONFIG``."""

import argparse
from pathlib import Path

import numpy as np
from mmengine.config import Config, DictAction
from mmengine.registry import DATASETS, VISUALIZERS, init_default_scope
from mmengine.structures import BaseDataElement
from torch import Tensor

from ..errors import SettingError
from .launch import CONFIG_HELP, check_data, one_line_errors, read_config, set_data_root


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument('--out', default='outputs/browse_data', help='folder to write to (default: %(default)s)')
    parser.add_argument('--number', type=int, default=20, help='images, spread over the dataset (default: 20)')
    parser.add_argument('--show', action='store_true', help='show them in a window, a key for the next')
    parser.add_argument('--data-root', help="folder of the dataset, in place of the config's")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help="settings that override the config's")
    return parser.parse_args()


def to_rgb(inputs: Tensor) -> np.ndarray:
    """The (H, W, 3) uint8 picture of packed (C, H, W) inputs in OpenCV's order, of grey or of more bands too."""
    inputs = inputs[:3].flip(0) if len(inputs) >= 3 else inputs[:1].expand(3, -1, -1)
    return inputs.clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()  # distorted colours are floats


def drawable(sample: BaseDataElement) -> BaseDataElement:
    """The sample with boxes as plain arrays, which is what visualizers draw."""
    boxes = sample.gt_instances.get('bboxes') if 'gt_instances' in sample else None
    if hasattr(boxes, 'tensor'):
        sample.gt_instances.bboxes = boxes.tensor
    return sample.numpy()


def browse(cfg: Config, out: str | Path, number: int, show: bool = False) -> int:
    """Draws training samples into a folder.

    Args:
        cfg: The config.
        out: The folder.
        number: How many samples, spread over the dataset.
        show: Whether to show each in a window too.

    Returns:
        How many were drawn.

    Raises:
        SettingError: The config has no visualizer, or ``number`` is below 1.
    """
    if number < 1:
        raise SettingError(f'--number {number} must be at least 1')
    if not cfg.get('visualizer'):
        raise SettingError(f'{cfg.filename} has no visualizer, which draws: take default_runtime.py of mmdet or mmseg')
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    visualizer = VISUALIZERS.build(dict(cfg.visualizer, vis_backends=None, name='browse_data'))
    visualizer.dataset_meta = dataset.metainfo
    indices = np.unique(np.linspace(0, len(dataset) - 1, number).astype(int)).tolist()
    for index in indices:
        item = dataset[index]
        name = f'{index:06d}_{Path(item["data_samples"].img_path).stem}'
        settings = dict(draw_pred=False, show=show, out_file=str(Path(out, f'{name}.jpg')))
        picture, sample = to_rgb(item['inputs']), item['data_samples']
        if cfg.get('default_scope') == 'mmpretrain':
            visualizer.visualize_cls(picture, sample, name=name, **settings)
        else:
            visualizer.add_datasample(name, picture, drawable(sample), **settings)
    return len(indices)


@one_line_errors
def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    if args.data_root is not None:
        set_data_root(cfg, args.data_root)
    check_data(cfg, 'train_dataloader')
    print(f'{browse(cfg, args.out, args.number, args.show)} pictures: {args.out}')
