"""How many images a second the input pipeline of a config gives, beside what training consumes:
``python -m benchmarks.data configs/retinanet/pvt_small_1x.py --data-root data/coco``.

One process with one thread loads the config's training images, as each worker of its data loader does. The time of each
step of the pipeline is printed beside the whole. Then the config's model trains on the loaded images. Beside them
stands how fast ``check_images`` goes through the images, all decoded, and how fast the data loader gives them, without
and with ``exact_resume``. Writes
benchmarks/results/data_<system>_<device>_<precision>.json and .md.
"""

import argparse
import os
import resource
import time
from collections import defaultdict
from functools import partial
from math import ceil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from paper.tables import markdown
from pvt_mm.commands.launch import check_data, one_line_errors, set_data_root
from pvt_mm.data.findings import Findings
from pvt_mm.data.images import check_images
from pvt_mm.engine.amp import keep_ops_in_float32
from pvt_mm.engine.exact import SeededSamples, exact_dataloader

from .common import autocast, compiled, keep, parse
from .measure import interleaved


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--data-root', help="the dataset's folder, in place of the config's")
    parser.add_argument('--images', type=int, default=64, help='how many are loaded')
    parser.add_argument('--checked', type=int, default=1000, help='how many the check of images goes through')
    parser.add_argument('--workers', nargs='+', type=int, default=[0, 1, 2], help='of the data loader')
    return parse(parser)


def load(cfg: Config, number: int) -> tuple[dict[str, float], list[dict]]:
    """Loads training images one by one.

    Returns:
        The milliseconds an image of each step of the pipeline, and the first images, as many as a batch has.
    """
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    dataset.full_init()
    seconds, batch = defaultdict(float), []
    cv2.setNumThreads(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for i in range(number):
        sample = dataset.get_data_info(i % len(dataset))
        for transform in dataset.pipeline.transforms:
            start = time.perf_counter()
            sample = transform(sample)
            seconds[type(transform).__name__] += time.perf_counter() - start
            if sample is None:  # the data loader would take another image
                break
        if sample is not None and len(batch) < cfg.train_dataloader.batch_size:
            batch.append(sample)
    torch.set_num_threads(threads)
    return {name: 1000 * total / number for name, total in seconds.items()}, batch


def check(cfg: Config, number: int, runs: int) -> dict[str, float]:
    """Images per second of processor time: of ``check``, which decodes all, and of ``decode``, OpenCV alone."""
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    dataset.full_init()
    with TemporaryDirectory() as folder:  # a small dataset stands for a large one: its images, linked many times
        paths = [f'{folder}/{i}.jpg' for i in range(number)]
        for i, path in enumerate(paths):
            os.symlink(os.path.abspath(dataset.get_data_info(i % len(dataset))['img_path']), path)
        return _check(paths, runs)


def _check(paths: list[str], runs: int) -> dict[str, float]:
    def decode() -> None:
        for path in paths:
            cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)

    cv2.setNumThreads(0)
    work = dict(check=lambda: check_images(paths, None, 'all', Findings(), lambda line: None), decode=decode)
    seconds = defaultdict(list)
    for _ in range(1 + runs):  # the first warms up
        for name, step in work.items():
            before = processor_time()
            step()
            seconds[name].append(processor_time() - before)
    return {name: len(paths) / median(times[1:]) for name, times in seconds.items()}


def processor_time() -> float:
    """Seconds of this process and of those that it started and that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def load_exactly(cfg: Config, number: int, runs: int, numbers_of_workers: list[int]) -> list[dict]:
    """Images per second of the data loader by its number of workers, without and with ``exact_resume``."""
    rows = []
    for workers in numbers_of_workers:
        settings = dict(cfg.train_dataloader, num_workers=workers, persistent_workers=workers > 0)
        settings['dataset'] = dict(settings['dataset'], indices=number)
        plain = Runner.build_dataloader(settings, seed=0)
        exact = Runner.build_dataloader(exact_dataloader(settings, 0), seed=0)
        exact.dataset.__getitems__ = SeededSamples(exact.dataset)

        def load_all(loader: DataLoader) -> None:
            loader.batch_sampler.skip = 0  # batches; of the exact one
            for _ in loader:
                pass

        times = interleaved(dict(plain=partial(load_all, plain), exact=partial(load_all, exact)), 'cpu', runs)
        rates = {name: 1000 * min(number, len(plain.dataset)) / median(ms) for name, ms in times.items()}
        rows.append(dict(workers=workers, **rates))
    return rows


def train(cfg: Config, batch: list[dict], args: argparse.Namespace) -> float:
    """The milliseconds of a training step: the median."""
    if args.precision != 'float32':
        keep_ops_in_float32()
    model = MODELS.build(cfg.model)
    if args.device == 'cpu':
        model = revert_sync_batchnorm(model)
    model.to(args.device).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)

    def step() -> None:
        with autocast(args.device, args.precision):
            data = model.data_preprocessor(pseudo_collate(batch), True)
            losses = model(**data, mode='loss')
        wrapper.update_params(model.parse_losses(losses)[0])

    if args.compile:
        step = compiled(model, step)
    return median(interleaved(dict(training=step), args.device, args.runs, args.seconds)['training'])


@one_line_errors
def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    if args.data_root:
        set_data_root(cfg, args.data_root)
    check_data(cfg, 'train_dataloader')
    cfg.model.backbone.init_cfg = None
    if 'pretrained' in cfg.model:
        cfg.model.pretrained = None
    init_default_scope(cfg.default_scope)
    steps, batch = load(cfg, args.images)
    consumed = 1000 * len(batch) / train(cfg, batch, args)
    given = 1000 / sum(steps.values())
    rows = [[name, f'{ms:.2f}'] for name, ms in steps.items()] + [['all', f'{sum(steps.values()):.2f}']]
    checked, loaders = check(cfg, args.checked, args.runs), load_exactly(cfg, args.images, args.runs, args.workers)
    rates = [
        [str(row['workers']), f'{row["plain"]:.0f}', f'{row["exact"]:.0f}', f'{row["exact"] / row["plain"]:.2f}']
        for row in loaders
    ]
    text = (
        f'# Input pipeline of {args.config}\n\n{markdown(["step", "ms an image"], rows)}\n'
        f'A worker gives {given:.1f} images/s; training with {len(batch)} images at a time consumes {consumed:.2f}: '
        f'{ceil(consumed / given)} worker(s) of the {cfg.train_dataloader.num_workers} configured keep up.\n\n'
        f'The check of all images, each decoded, goes through {checked["check"]:.0f} per second and core; OpenCV alone '
        f'decodes {checked["decode"]:.0f}: the check has {checked["check"] / checked["decode"]:.2f} of its rate.\n\n'
        f'Images/s of the data loader:\n\n{markdown(["workers", "as mmengine", "exact_resume", "ratio"], rates)}'
    )
    keep(
        args,
        f'data_{Path(args.config).parent.name}',
        dict(steps=steps, given=given, consumed=consumed, checked=checked, loaders=loaders),
        text,
    )


if __name__ == '__main__':
    main()
