"""Times and weighs whole detectors and segmenters with PVT-Small, beside mmdet's port of it and ResNet50:
``python -m benchmarks.detector``.

Testing is timed as a whole and in parts: preparing the batch, and the network (for Mask R-CNN with the selection of
proposals). The rest is post-processing, of as many detections as there can be: the weights are random, and no score is
too low. A training step is forward, backward and the optimizer's step. Writes
benchmarks/results/detector_<device>_<precision>.json and .md.
"""

import argparse
from collections.abc import Callable

import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from paper.rows import CONFIGS
from paper.tables import markdown
from pvt_mm.commands.launch import dicts, one_line_errors
from pvt_mm.engine.amp import keep_ops_in_float32

from .common import CELLS, Images, autocast, cells, compare, compiled, keep, parse, parse_images

# Each system's row with PVT-Small and the one with ResNet50, and the images that it is tested on.
SYSTEMS = {
    'retinanet': ('pvt_small_1x', 'r50_1x', '800x1216'),
    'mask_rcnn': ('pvt_small_1x', 'r50_1x', '800x1216'),
    'semantic_fpn': ('pvt_small_80k', 'r50_80k', '512x512'),
    'detr': ('pvt_small_50e', 'r50_50e', '800x1216'),
}
OURS = 'pvt_mm'
BACKBONES = (OURS, "mmdet's port", 'ResNet50')
WORK = {
    'preparing': 'preparing the batch',
    'network': 'network',
    'testing': 'testing, all of it',
    'training': 'training step',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--systems', nargs='+', choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument('--size', help='of the images, height x width, in place of 800x1216, of the segmenter 512x512')
    parser.add_argument('--batches', nargs='+', type=int, help='for testing; default: 1 on a CPU, 1 and 8 on a GPU')
    parser.add_argument(
        '--train-batches', nargs='+', type=int, help='for the training step; default: 1 on a CPU, 2 on a GPU'
    )
    parser.add_argument('--work', nargs='+', choices=WORK, default=list(WORK), help='default: all')
    args = parse(parser)
    on_cpu = args.device == 'cpu'
    args.batches, args.train_batches = (
        args.batches or ([1] if on_cpu else [1, 8]),
        args.train_batches or ([1] if on_cpu else [2]),
    )
    return args


def load(system: str, backbone: str) -> Config:
    """The config of a system's row, without pretrained weights and without a score below which nothing is detected."""
    cfg = Config.fromfile(CONFIGS / system / f'{SYSTEMS[system][backbone == "ResNet50"]}.py')
    if backbone == "mmdet's port":
        settings = cfg.model.backbone
        cfg.model.backbone = dict(
            type='mmdet.PyramidVisionTransformer',
            drop_path_rate=settings.drop_path_rate,
            out_indices=settings.get('out_indices', (0, 1, 2, 3)),
        )
    cfg.model.backbone.init_cfg = None
    if system == 'semantic_fpn':
        cfg.model.pretrained = None
    for settings in dicts(cfg.model.get('test_cfg')):
        if 'score_thr' in settings:
            settings['score_thr'] = 0.0
    return cfg


def make_data(cfg: Config, system: str, images: Images) -> dict:
    """A batch of random images with ten objects each, as the data loader hands it over."""
    batch, _, height, width = images
    if system != 'semantic_fpn':
        return demo_mm_inputs(batch, (3, height, width), [10] * batch, 80, with_mask=system == 'mask_rcnn')
    samples = []
    for _ in range(batch):
        sample = SegDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width)))
        sample.gt_sem_seg = PixelData(data=torch.randint(150, (1, height, width)))
        samples.append(sample)
    return dict(
        inputs=[torch.randint(255, (3, height, width), dtype=torch.uint8) for _ in samples], data_samples=samples
    )


def make_step(
    images: Images, device: str, precision: str, system: str, backbone: str, work: str, compile: bool = False
) -> Callable[[], object]:
    if precision != 'float32':  # as tools/train.py does
        keep_ops_in_float32()
    cfg = load(system, backbone)
    if system == 'semantic_fpn':
        cfg.model.data_preprocessor.size = images[2:]  # else smaller ones are padded to crops of 512x512 in training
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    with torch.device(device):  # a card draws the weights in no time
        model = MODELS.build(cfg.model)
    if device == 'cpu':
        model = revert_sync_batchnorm(model)
    model.to(device).train(work == 'training')
    data = make_data(cfg, system, images)
    if work == 'training':
        if device == 'cuda' and precision != 'float32':  # with it, float16's losses are scaled
            cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype=precision)
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    prepared = model.data_preprocessor(data, work == 'training')

    def training() -> float:
        with autocast(device, precision), wrapper.optim_context(model):
            losses = model(**prepared, mode='loss')
        loss = model.parse_losses(losses)[0]
        wrapper.update_params(loss)
        return loss.item()

    @torch.no_grad()
    def testing() -> list:
        with autocast(device, precision):
            return model.test_step(data)

    @torch.no_grad()
    def network() -> object:
        with autocast(device, precision):
            return model(**prepared, mode='tensor')

    def preparing() -> dict:
        return model.data_preprocessor(data, False)

    step = dict(training=training, testing=testing, network=network, preparing=preparing)[work]
    return compiled(model, step) if compile else step


def table(rows: list[dict]) -> str:
    """A system's pieces of work, each with ours beside the others."""
    lines = []
    for row in rows:
        ours = next(r for r in rows if (r['work'], r['images'], r['backbone']) == (row['work'], row['images'], OURS))
        lines.append([WORK[row['work']], 'x'.join(map(str, row['images'])), row['backbone'], *cells(row, ours)])
    return markdown(['work', 'images', 'backbone', *CELLS], lines)


@one_line_errors
def main() -> None:
    args = parse_args()
    rows = []
    for system in args.systems:
        size = args.size or SYSTEMS[system][2]
        tested = [work for work in args.work if work != 'training']
        shapes = [(work, f'{batch}x{size}') for batch in args.batches for work in tested]
        shapes += [('training', f'{batch}x{size}') for batch in args.train_batches if 'training' in args.work]
        for work, text in shapes:
            images = parse_images(text)
            cases = {backbone: (system, backbone, work, args.compile) for backbone in BACKBONES}
            rows += [
                dict(system=system, work=work, images=images, backbone=backbone, **row)
                for backbone, row in compare(make_step, images, cases, args).items()
            ]
            # after each piece of work: what ends it early leaves those before
            parts = [f'# Whole systems with PVT-Small, {args.precision}{", compiled" * args.compile}']
            for measured in dict.fromkeys(row['system'] for row in rows):
                parts.append(f'## {measured}\n\n{table([row for row in rows if row["system"] == measured])}')
            done = (system, work, text) == (args.systems[-1], *shapes[-1])
            keep(args, 'detector', dict(rows=rows), '\n\n'.join(parts), done)


if __name__ == '__main__':
    main()
