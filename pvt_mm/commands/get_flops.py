"""Prints parameters and multiply-adds of a config's model, part by part, attention included."""

import argparse
from collections import Counter
from collections.abc import Callable
from copy import deepcopy

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import SettingError
from .backbones import check_backbones
from .launch import CONFIG_HELP, one_line_errors, read_config

SHAPES = dict(mmseg=(512, 512), mmpretrain=(224, 224))  # (height, width) in pixels


def build_model(cfg: Config) -> nn.Module:
    """The model of a config in evaluation mode, on the meta device: its weights have shapes and no values."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    try:
        with torch.device('meta'):
            model = MODELS.build(deepcopy(cfg.model))
    except (NotImplementedError, RuntimeError):  # mmdet's PVT, Swin, mmpretrain's ResNet and others compute while built
        model = MODELS.build(deepcopy(cfg.model)).to('meta')
    model.eval()  # mmdet's ResNet returns nothing here
    return model


def count_parameters(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The parameters of each direct part of ``model`` that has some: (all, trainable)."""
    parts = {}
    for name, parameter in model.named_parameters():
        part = name.split('.')[0]
        total, trainable = parts.get(part, (0, 0))
        parts[part] = (total + parameter.numel(), trainable + parameter.numel() * parameter.requires_grad)
    return parts


def count_multiply_adds(model: nn.Module, shape: tuple[int, int]) -> dict[str, int]:
    """The multiply-adds of one image through each direct part of ``model``, without pre- and post-processing.

    Counted without computing, on the meta device, where torch's counter sees attention as a product too. Heads on
    regions are counted on as many as testing hands to them: ``test_cfg.rpn.max_per_img`` proposals through the box
    head and ``test_cfg.rcnn.max_per_img`` detections through the mask head.

    Args:
        model: A detector, segmenter or backbone of :func:`build_model`.
        shape: The image's (height, width) in pixels.

    Raises:
        SettingError: The model cannot be counted in this way.
    """
    parts = Counter()
    counter = FlopCounterMode(display=False)
    for name, part in model.named_children():
        part.forward = _counted(part.forward, name, parts, counter)
    image = torch.zeros(1, 3, *shape, device='meta')
    try:
        with torch.no_grad(), counter:
            _forward(model, image, shape)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise SettingError(
            f'{type(model).__name__} cannot be counted at {shape[0]}x{shape[1]}: '
            f'{type(error).__name__}: {str(error).splitlines()[0]}'
        ) from error
    finally:
        for part in model.children():
            del part.forward
    rest = counter.get_total_flops() // 2 - sum(parts.values())
    if rest:
        parts['roi_head' if hasattr(model, 'roi_head') else 'between the parts'] = rest
    return dict(parts)


def _counted(forward: Callable, name: str, parts: Counter, counter: FlopCounterMode) -> Callable:
    """``forward`` that adds its cost to ``parts[name]``. A hook would miss heads whose forward mmdet calls itself."""

    def call(*args, **kwargs):
        before = counter.get_total_flops()
        out = forward(*args, **kwargs)
        parts[name] += (counter.get_total_flops() - before) // 2
        return out

    return call


def _forward(model: nn.Module, image: Tensor, shape: tuple[int, int]) -> None:
    if not hasattr(model, 'extract_feat'):
        model(image)
    elif hasattr(model, 'roi_head'):
        features = model.extract_feat(image)
        if getattr(model, 'rpn_head', None) is not None:
            model.rpn_head(features)
        _regions(model.roi_head, features[0].shape[1], model.test_cfg)
    else:
        sample = BaseDataElement(
            metainfo=dict(img_shape=shape, ori_shape=shape, batch_input_shape=shape, pad_shape=shape)
        )
        model(image, [sample], mode='tensor')


def _regions(roi_head: nn.Module, channels: int, test_cfg: dict) -> None:
    """Runs the heads of regions on made-up regions: RoIAlign knows no meta device, and has no products to count."""
    for kind, number in (('bbox', test_cfg['rpn']['max_per_img']), ('mask', test_cfg['rcnn']['max_per_img'])):
        heads, extractors = (getattr(roi_head, f'{kind}_{part}', None) for part in ('head', 'roi_extractor'))
        if heads is None:
            continue
        if not isinstance(heads, nn.ModuleList):
            heads, extractors = [heads], [extractors]
        for head, extractor in zip(heads, extractors):
            size = extractor.roi_layers[0].output_size
            head(torch.zeros(number, channels, *size, device='meta'))


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='image size in pixels (default: 512 512 for segmenters, 224 224 for classifiers, 800 1280 for detectors)',
    )
    args = parser.parse_args()
    cfg = read_config(args.config)
    shape = tuple(args.shape or SHAPES.get(cfg.get('default_scope'), (800, 1280)))
    check_backbones(cfg)
    model = build_model(cfg)
    parameters = count_parameters(model)
    multiply_adds = count_multiply_adds(model, shape)
    print(
        f'{type(model).__name__} at {shape[0]}x{shape[1]} px\n'
        f'{"part":<20} {"parameters (M)":>15} {"trainable (M)":>15} {"multiply-adds (G)":>18}'
    )
    for part in [*parameters, *(part for part in multiply_adds if part not in parameters)]:
        print_row(part, *parameters.get(part, (0, 0)), multiply_adds.get(part, 0))
    print_row('all', *map(sum, zip(*parameters.values())), sum(multiply_adds.values()))
    if hasattr(model, 'roi_head'):
        print(
            f'roi_head: boxes of {model.test_cfg["rpn"]["max_per_img"]} proposals, '
            f'masks of {model.test_cfg["rcnn"]["max_per_img"]} detections'
        )


def print_row(part: str, parameters: int, trainable: int, multiply_adds: int) -> None:
    print(f'{part:<20} {parameters / 1e6:>15.2f} {trainable / 1e6:>15.2f} {multiply_adds / 1e9:>18.2f}')
