"""What zero padding does to PVT's maps and training, and what ``PVT(ignore_padding=True)`` changes (docs/padding.md):

python -m benchmarks.padding pretrain          writes the digits and OUT/square.pth, trained on square scenes
python -m benchmarks.padding maps              maps of an image alone and in a batch; real images from $PVT_MM_COCO
python -m benchmarks.padding train             trains on batches of wide and tall scenes, and prints a row a run
python -m benchmarks.padding cost              time and memory of a forward pass with and without the setting
"""

import argparse
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from unittest.mock import patch

import cv2
import mmcv
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor

from paper.tables import markdown
from pvt_mm import PVT
from pvt_mm.commands.attention import recorded
from pvt_mm.data.digits import write_digits
from pvt_mm.models.layers import Size, resize_position

from .measure import ROOT, interleaved, peak_memory

SIDE = 96  # of a square scene, in pixels
MEAN, STD = torch.tensor([[[[123.675]], [[116.28]], [[103.53]]], [[[58.395]], [[57.12]], [[57.375]]]])
# Each column of the maps' table: None is without ignore_padding, else the function of it that is replaced, if any.
UNDONE = {
    'nothing': None,
    'masked keys': ('own_position', lambda position, grid, extents, size: resize_position(position, grid, size)),
    'own positions': ('key_mask', lambda *args: None),
    'both': (),
}
RUNS = {
    'as published': {},
    'ignore_padding': dict(ignore_padding=True),
    'clipping': dict(max_norm=1.0),
    'no padding (grouped by shape)': dict(grouped=True),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=('pretrain', 'maps', 'train', 'cost'))
    parser.add_argument('--out', type=Path, default=Path('work_dirs/padding'), help='folder of digits and checkpoint')
    parser.add_argument('--iterations', type=int, default=150)
    parser.add_argument('--lr', type=float, default=1e-3)
    parser.add_argument('--runs', nargs='+', choices=RUNS, default=list(RUNS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1])
    return parser.parse_args()


def join_scenes(squares: Path, root: Path) -> None:
    """Writes scenes that are twice as wide as tall, or twice as tall as wide: two square ones beside each other."""
    for split in ('train2017', 'val2017'):
        coco = json.loads((squares / f'annotations/instances_{split}.json').read_text())
        boxes = {image['id']: [] for image in coco['images']}
        for annotation in coco['annotations']:
            boxes[annotation['image_id']].append(annotation)
        images, annotations = [], []
        (root / split).mkdir(parents=True)
        for first, second in zip(coco['images'][::2], coco['images'][1::2]):
            axis = len(images) % 2
            pixels = np.concatenate([cv2.imread(str(squares / split / i['file_name'])) for i in (first, second)], axis)
            images.append(dict(first, height=pixels.shape[0], width=pixels.shape[1]))
            cv2.imwrite(str(root / split / first['file_name']), pixels)
            for i, image in enumerate((first, second)):
                for annotation in boxes[image['id']]:
                    x, y, width, height = annotation['bbox']
                    box = [x + SIDE * i * (axis == 1), y + SIDE * i * (axis == 0), width, height]
                    annotation = dict(annotation, id=len(annotations) + 1, image_id=first['id'], bbox=box)
                    annotations.append({key: value for key, value in annotation.items() if key != 'segmentation'})
        (root / 'annotations').mkdir(exist_ok=True)
        content = dict(coco, images=images, annotations=annotations)
        (root / f'annotations/instances_{split}.json').write_text(json.dumps(content))


def run_training(
    data_root: Path,
    side: int,
    args: argparse.Namespace,
    seed: int = 0,
    pretrained: str | None = None,
    ignore_padding: bool = False,
    max_norm: float = torch.inf,  # which clips nothing, and has the norm recorded
    grouped: bool = False,
) -> Runner:
    """Trains the nano RetinaNet without warm-up on scenes whose long side is ``side`` px."""
    cfg = Config.fromfile(ROOT / 'configs/retinanet/pvt_nano_digits.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = f'{data_root}/'
        next(step for step in loader.dataset.pipeline if step.type == 'Resize').scale = (side, side)
    cfg.val_dataloader.batch_size = 1  # as mmdet tests: without padding
    cfg.val_evaluator.ann_file = f'{data_root}/annotations/instances_val2017.json'
    if not grouped:
        cfg.train_dataloader.batch_sampler = None
    cfg.model.backbone.update(img_size=SIDE, ignore_padding=ignore_padding, pretrained=pretrained)
    cfg.optim_wrapper.optimizer.lr = args.lr
    cfg.optim_wrapper.clip_grad.max_norm = max_norm
    cfg.param_scheduler = []
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=args.iterations, val_interval=args.iterations)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=args.iterations)
    cfg.randomness = dict(seed=seed)
    cfg.work_dir = str(args.out / 'runs')
    cfg.log_level = 'WARNING'
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def figures(runner: Runner) -> list[str]:
    """The gradient's norm (median, most, most after 20 iterations, how often beyond five times the median), the mean
    loss of the last 20 iterations and AP."""
    norms, losses = (runner.message_hub.get_scalar(f'train/{name}').data[0] for name in ('grad_norm', 'loss'))
    middle = median(norms)
    ap = runner.message_hub.get_scalar('val/coco/bbox_mAP').current()
    return [
        f'{middle:.1f}',
        f'{norms.max():.1f}',
        f'{norms[20:].max():.1f}',
        str((norms > 5 * middle).sum()),
        f'{losses[-20:].mean():.3f}',
        f'{100 * ap:.1f}',
    ]


def read(path: Path, short: int) -> Tensor:
    """An image normalised as for PVT, its short side near ``short``, cut to multiples of 32 px: (3, H, W)."""
    image = mmcv.imread(str(path), channel_order='rgb')
    image = mmcv.imrescale(image, short / min(image.shape[:2]))
    image = image[: image.shape[0] // 32 * 32, : image.shape[1] // 32 * 32]
    return (torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1) - MEAN) / STD


def compare(pvt: PVT, images: list[Tensor]) -> dict[str, list[float]]:
    """The relative difference of each stage's map of the first image alone and in the batch, for each of UNDONE."""
    batch = padded(images)
    found = {}
    for name, undone in UNDONE.items():
        pvt.ignore_padding = undone is not None
        with ExitStack() as stack:
            if undone:
                stack.enter_context(patch(f'pvt_mm.models.pvt.{undone[0]}', undone[1]))
            found[name] = [relative(*maps) for maps in zip(pvt(images[0][None]), pvt(batch))]
    pvt.ignore_padding = False
    return found


def padded(images: list[Tensor]) -> Tensor:
    height, width = (max(image.shape[i] for image in images) for i in (1, 2))
    return torch.stack([F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in images])


def relative(alone: Tensor, batch: Tensor) -> float:
    return float((batch[0, :, : alone.shape[2], : alone.shape[3]] - alone[0]).norm() / alone.norm())


def mass_on_padding(pvt: PVT, images: list[Tensor]) -> list[float]:
    """The share of attention that the first image's tokens give to keys in the padding: each stage's first layer."""
    batch, (height, width) = padded(images), images[0].shape[1:]
    shares = []
    for i, stride in enumerate(pvt.strides.values()):
        size, attn = (batch.shape[2] // stride, batch.shape[3] // stride), pvt.stage(i).blocks[0].attn
        tokens = inside(size, (height // stride, width // stride)).flatten().nonzero()[:, 0]
        side = stride * attn.sr_ratio
        keys = inside((batch.shape[2] // side, batch.shape[3] // side), (-(-height // side), -(-width // side)))
        with recorded(attn, tokens) as weights:
            pvt(batch)
        shares.append(float(weights[0][0, :, :, ~keys.flatten()].sum(2).mean()))
    return shares


def inside(size: Size, own: Size) -> Tensor:
    flags = torch.zeros(size, dtype=torch.bool)
    flags[: own[0], : own[1]] = True
    return flags


def moved_positions(pvt: PVT, images: list[Tensor]) -> list[float]:
    """The relative difference of the first image's position embeddings alone and in the batch, each stage."""
    moved = []
    for (name, grid), stride in zip(pvt.grids.items(), pvt.strides.values()):
        embedding = getattr(pvt, name)[:, -grid[0] * grid[1] :]
        sizes = [(x.shape[-2] // stride, x.shape[-1] // stride) for x in (images[0], padded(images))]
        maps = (resize_position(embedding, grid, s).unflatten(1, s).permute(0, 3, 1, 2) for s in sizes)
        moved.append(relative(*maps))
    return moved


@torch.no_grad()
def study_maps(args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    nano = Config.fromfile(ROOT / 'configs/retinanet/pvt_nano_digits.py').model.backbone
    trained = PVT(nano.arch, img_size=SIDE).eval()
    trained.load_state_dict(torch.load(args.out / 'square.pth', weights_only=True))
    models = {
        'PVT-Tiny, real images, initial weights': (PVT('tiny').eval(), Path(os.environ['PVT_MM_COCO'], 'val2017'), 400),
        'nano, digits, initial weights': (PVT(nano.arch, img_size=SIDE).eval(), args.out / 'joined/val2017', SIDE),
        'nano, digits, trained on squares': (trained, args.out / 'joined/val2017', SIDE),
    }
    for title, (pvt, folder, short) in models.items():
        rows = []
        for case, images in batches(sorted(folder.iterdir())[:24], short).items():
            moved, shares, found = moved_positions(pvt, images), mass_on_padding(pvt, images), compare(pvt, images)
            for i in range(pvt.num_stages):
                differences = (values[i] for values in found.values())
                cells = [f'{value:.1%}' if value > 1e-4 else f'{value:.0e}' for value in differences]
                rows.append([case, str(i + 1), f'{moved[i]:.1%}', f'{shares[i]:.1%}', *cells])
        header = ['batch', 'stage', 'positions moved', 'attention on padding', *UNDONE]
        print(f'\n{title}\n\n{markdown(header, rows)}', flush=True)


def batches(paths: list[Path], short: int) -> dict[str, list[Tensor]]:
    """Batches of two by name. The first image is that which is compared."""
    images = sorted((read(path, short) for path in paths), key=lambda image: image.shape[2] / image.shape[1])
    tall, wide = images[0], images[-1]
    square = wide[:, :, : wide.shape[1]]
    return {
        'one patch more': [wide, F.pad(wide, (0, 32, 0, 32), mode='replicate')],
        'square with wide': [square, wide],
        'wide with tall': [wide, tall],
    }


def study_cost() -> None:
    """A batch of two, 416x608 px, of which the first is padded."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 416, 608)
    images[0, :, :, 416:] = 0
    pvts = {str(on): PVT('tiny', ignore_padding=on).eval() for on in (False, True)}

    def forward(pvt: PVT) -> Callable[[], object]:
        return torch.no_grad()(lambda: pvt(images))

    steps = {name: forward(pvt) for name, pvt in pvts.items()}
    times = interleaved(steps, 'cpu', runs=5)
    rows = [[name, f'{median(times[name]):.0f}', f'{peak_memory(step, "cpu"):.0f}'] for name, step in steps.items()]
    print(markdown(['ignore_padding', 'ms', 'MiB'], rows))


def main() -> None:
    args = parse_args()
    if args.what == 'pretrain':
        write_digits(args.out / 'squares', num_train=600, num_val=96, size=SIDE)
        if not (args.out / 'joined').exists():
            join_scenes(args.out / 'squares/coco', args.out / 'joined')
        runner = run_training(args.out / 'squares/coco', SIDE, args)
        torch.save(runner.model.backbone.state_dict(), args.out / 'square.pth')
        print(figures(runner))
    elif args.what == 'maps':
        study_maps(args)
    elif args.what == 'cost':
        study_cost()
    else:
        header = ['', 'seed', 'median norm', 'most', 'most after 20', '> 5x median', 'last loss', 'AP']
        rows = []
        for name in args.runs:
            for seed in args.seeds:
                settings = dict(RUNS[name], pretrained=str(args.out / 'square.pth'))
                runner = run_training(args.out / 'joined', 2 * SIDE, args, seed, **settings)
                rows.append([name, str(seed), *figures(runner)])
        print(markdown(header, rows))


if __name__ == '__main__':
    main()
