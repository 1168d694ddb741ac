"""Draws where each stage of a PVT looks from a point or a box: ``pvt-mm attention CONFIG CHECKPOINT IMAGE --point X,Y``

The picture, OUT/attention/IMAGE_X_Y.png, has a panel for each stage: the weights that the tokens of the point or box
give to the keys, laid back on the image. docs/looking.md says more.
"""

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import ceil
from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ..errors import SettingError
from ..models import PVT
from ..models.layers import Size
from ..models.pvt import SpatialReductionAttention
from .launch import check_checkpoint, check_ops, one_line_errors, read_config
from .predict import add_model_arguments, load_inferencer

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels; a point is a box without sides


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument('image', help='image file')
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument('--point', metavar='X,Y', help='look from this point of the image (pixels)')
    asked.add_argument('--box', metavar='X1,Y1,X2,Y2', help='look from all tokens that touch this box; their mean')
    parser.add_argument(
        '--block', type=int, default=-1, help='layer of each stage, counted from 0, or from the end (default: -1)'
    )
    return parser.parse_args()


@contextmanager
def recorded(attn: SpatialReductionAttention, tokens: Tensor) -> Iterator[list[Tensor]]:
    """Within it, each call of ``attn`` adds the attention weights of some queries to a list.

    The fused attention gives no weights: they are computed once more, from the same queries and keys, for the
    queries that are asked for.

    Args:
        attn: The layer. Its output stays what it is.
        tokens: Indices of queries, (N,).

    Yields:
        The list of weights, (B, num_heads, N, M) for M keys; each row sums to 1.
    """
    weights, attention_fn = [], attn.attention_fn

    def record(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **settings) -> Tensor:
        scores = q[:, :, tokens] @ k.transpose(2, 3) / q.shape[3] ** 0.5
        if attn_mask is not None:
            scores.masked_fill_(~attn_mask, -torch.inf)
        weights.append(scores.softmax(3))
        return attention_fn(q, k, v, attn_mask=attn_mask, **settings)

    attn.attention_fn = record
    try:
        yield weights
    finally:
        attn.attention_fn = attention_fn


def tokens_under(box: Box, stride: int, size: Size) -> Tensor:
    """The indices of the tokens that a box touches.

    Args:
        box: In pixels of the model's input.
        stride: Side of a token in pixels.
        size: The grid (H, W) of the tokens. What lies beyond its end belongs to its last row or column.
    """
    spans = []
    for low, high, number in ((box[1], box[3], size[0]), (box[0], box[2], size[1])):
        first = min(int(low // stride), number - 1)
        spans.append(torch.arange(first, max(first + 1, min(ceil(high / stride), number))))
    return (spans[0][:, None] * size[1] + spans[1]).flatten()


@torch.no_grad()
def attention_maps(pvt: PVT, image: Tensor, box: Box, block: int = -1) -> list[Tensor]:
    """Where the tokens under a box look, in each stage.

    Args:
        pvt: The backbone, in evaluation mode.
        image: The model's input, (1, in_channels, H, W).
        box: In pixels of ``image``.
        block: Which layer of each stage.

    Returns:
        For each stage the mean weight of each key over heads and tokens, (H_i, W_i): a key stands for
        ``stride * sr_ratio`` pixels a side. A map sums to 1.

    Raises:
        SettingError: A stage has no such layer.
    """
    recordings = []
    with ExitStack() as stack:
        for i, stride in enumerate(pvt.strides.values()):
            blocks = pvt.stage(i).blocks
            if not -len(blocks) <= block < len(blocks):
                raise SettingError(f'--block {block}: stage {i + 1} has the layers 0 to {len(blocks) - 1}')
            attn, size = blocks[block].attn, (image.shape[2] // stride, image.shape[3] // stride)
            weights = stack.enter_context(recorded(attn, tokens_under(box, stride, size)))
            recordings.append((weights, (size[0] // attn.sr_ratio, size[1] // attn.sr_ratio)))
        pvt(image)
    return [weights[0].mean((1, 2)).view(grid) for weights, grid in recordings]


def lay_back(weights: Tensor, side: int, scale: tuple[float, float], size: Size) -> np.ndarray:
    """The weights of keys on the pixels of the original image, between the keys' centres bilinearly.

    Args:
        weights: (H, W), a key each.
        side: Of a key, in pixels of the model's input.
        scale: (x, y): pixels of the input for a pixel of the original image.
        size: (height, width) of the original image.

    Returns:
        (height, width). Pixels that no key covers, at the right and lower end, have 0.
    """
    seen = cv2.resize(weights.cpu().numpy(), None, fx=side, fy=side, interpolation=cv2.INTER_LINEAR)
    shown = np.zeros((round(size[0] * scale[1]), round(size[1] * scale[0])), np.float32)  # the input without padding
    seen = seen[: shown.shape[0], : shown.shape[1]]
    shown[: seen.shape[0], : seen.shape[1]] = seen
    return cv2.resize(shown, size[::-1], interpolation=cv2.INTER_LINEAR)


def draw(image: np.ndarray, maps: list[np.ndarray], titles: list[str], box: Box) -> Figure:
    """A panel for each map over the image (height, width, 3) in RGB; the point or box is marked."""
    height, width = image.shape[:2]
    figure = Figure(figsize=(4 * len(maps), 4 * height / width + 0.4), layout='constrained')
    grey = np.repeat(image.mean(2, keepdims=True), 3, 2).astype(np.uint8)
    for axis, values, title in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps, titles):
        axis.imshow(grey)
        axis.imshow(values, cmap='jet', vmin=0, alpha=0.1 + 0.6 * values / values.max())
        if box[:2] == box[2:]:
            axis.plot(*box[:2], marker='o', markersize=9, color='white', markeredgecolor='black')
        else:
            corner, sides = box[:2], (box[2] - box[0], box[3] - box[1])
            axis.add_patch(Rectangle(corner, *sides, fill=False, color='white', linewidth=2))
        axis.set_title(title)
        axis.axis('off')
    return figure


def find_box(args: argparse.Namespace, size: Size) -> Box:
    """The point or box of the arguments.

    Raises:
        SettingError: It is none, or does not lie in an image of the size (height, width).
    """
    name, text, number = ('point', args.point, 2) if args.point else ('box', args.box, 4)
    try:
        values = tuple(map(float, text.split(',')))
    except ValueError:
        values = ()
    if len(values) != number:
        raise SettingError(f'--{name} {text} must be {number} numbers with commas between them')
    left, top, right, bottom = values if number == 4 else values * 2
    # a point names a pixel, the sides of a box lie between pixels
    if not (0 <= left <= right <= size[1] - (number == 2) and 0 <= top <= bottom <= size[0] - (number == 2)):
        raise SettingError(f'--{name} {text} does not lie in {args.image}, which has {size[1]}x{size[0]} px')
    return left, top, right, bottom


@one_line_errors
def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    if cfg.get('default_scope') == 'mmpretrain':
        raise SettingError(
            f'{args.config} is of a classifier, which sees a crop of the image: take the config of a detector or '
            'segmenter, with the weights of the classifier for its backbone'
        )
    check_ops()
    check_checkpoint(args.checkpoint)
    if not cv2.haveImageReader(args.image):
        raise SettingError(f'{args.image} is no image that OpenCV reads')
    image = mmcv.imread(args.image, channel_order='rgb')
    box = find_box(args, image.shape[:2])
    inferencer = load_inferencer(cfg, args.checkpoint, args.device)
    pvt = next((module for module in inferencer.model.modules() if isinstance(module, PVT)), None)
    if pvt is None:
        raise SettingError(f'{args.config} has no PVT, whose attention could be drawn')
    data = inferencer.collate_fn([inferencer.pipeline(args.image)])
    data = inferencer.model.data_preprocessor(data, False)
    scale = data['data_samples'][0].get('scale_factor', (1.0, 1.0))
    weights = attention_maps(pvt, data['inputs'], tuple(np.multiply(box, (*scale, *scale))), args.block)
    sides = [stride * sr for stride, sr in zip(pvt.strides.values(), pvt.arch['sr_ratios'])]
    maps = [lay_back(values, side, scale, image.shape[:2]) for values, side in zip(weights, sides)]
    titles = [
        f'stage {i}: {values.shape[0]}x{values.shape[1]} keys, at most {values.max():.1%}'
        for i, values in enumerate(weights, 1)
    ]
    path = Path(args.out, 'attention', f'{Path(args.image).stem}_{(args.point or args.box).replace(",", "_")}.png')
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(image, maps, titles, box).savefig(path, dpi=100)
    print(path)
