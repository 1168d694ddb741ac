"""Training and testing the rows of the paper's tables, and reading their results."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from mmengine.config import Config

from benchmarks.measure import commit, hardware, versions
from pvt_mm.commands.get_flops import build_model, count_multiply_adds
from pvt_mm.errors import SettingError

from .rows import ROOT, Row

# Images of an epoch: of COCO train2017 those that have objects, and those of ImageNet-1K.
TRAIN2017, IMAGENET = 117266, 1281167


def share_batch(cfg: Config, gpus: int) -> tuple[int, int]:
    """Splits a config's batch over ``gpus`` GPUs.

    Returns:
        The images per GPU, and the steps over which gradients are accumulated to keep the batch.

    Raises:
        SettingError: The batch is no multiple of ``gpus``.
    """
    total, most = cfg.auto_scale_lr.base_batch_size, cfg.train_dataloader.batch_size
    if total % gpus:
        fitting = ', '.join(str(n) for n in range(1, total + 1) if total % n == 0)
        raise SettingError(f'--gpus {gpus}: the batch of {total} images does not split evenly, use {fitting}')
    share = total // gpus
    batch = max(n for n in range(1, most + 1) if share % n == 0)
    return batch, share // batch


def batch_options(cfg: Config, gpus: int) -> list[str]:
    """The ``--cfg-options`` that keep a config's batch on ``gpus`` GPUs.

    Where gradients are accumulated, everything counted in iterations gets that many times as many.
    """
    batch, steps = share_batch(cfg, gpus)
    options = [f'train_dataloader.batch_size={batch}']
    if steps == 1:
        return options if batch != cfg.train_dataloader.batch_size else []
    options.append(f'optim_wrapper.accumulative_counts={steps}')
    if 'max_iters' in cfg.train_cfg:
        options += [f'train_cfg.{key}={cfg.train_cfg[key] * steps}' for key in ('max_iters', 'val_interval')]
        options.append(f'default_hooks.checkpoint.interval={cfg.default_hooks.checkpoint.interval * steps}')
    for i, scheduler in enumerate(cfg.param_scheduler):
        if not scheduler.get('by_epoch', True):
            options += [
                f'param_scheduler.{i}.{key}={scheduler[key] * steps}' for key in ('begin', 'end') if key in scheduler
            ]
    return options


def commands(
    row: Row, gpus: int, work_dir: Path, data_root: str | None, seed: int, options: list[str]
) -> Iterator[list[str]]:
    """Yields the command that trains a row or resumes it, then, once that has run, the command that tests it."""
    cfg = row.load()
    shared = ['--work-dir', str(work_dir)] + (['--data-root', data_root] if data_root else [])

    def command(tool: str, *args: str) -> list[str]:
        if gpus == 1:
            return [sys.executable, f'tools/{tool}.py', *args]
        return ['bash', f'tools/dist_{tool}.sh', *args, str(gpus)]

    set_in_training = [*batch_options(cfg, gpus), f'randomness.seed={seed}', *options]
    yield [*command('train', row.config), *shared, '--resume', '--cfg-options', *set_in_training]
    checkpoint = work_dir / Path((work_dir / 'last_checkpoint').read_text()).name
    yield [
        *command('test', row.config, str(checkpoint)),
        *shared,
        *(['--tta'] if row.tta else []),
        *(['--cfg-options', *options] if options else []),
    ]


def record_start(row: Row, gpus: int, work_dir: Path, seed: int, options: list[str], jobs: int = 1) -> dict:
    """Writes a run's settings to ``run.json`` when it starts, and returns them.

    Raises:
        SettingError: The folder holds a run with other settings.
    """
    batch, steps = share_batch(row.load(), gpus)
    settings = dict(
        config=row.config, options=options, seed=seed, gpus=gpus, images_per_gpu=batch, accumulated_steps=steps
    )
    path = work_dir / 'run.json'
    if path.is_file():
        run = json.loads(path.read_text())
        changed = [f'{key} was {run.get(key)}, is {value}' for key, value in settings.items() if run.get(key) != value]
        if changed:
            raise SettingError(
                f'{work_dir} holds a run with other settings ({"; ".join(changed)}): resume it with the same ones, or '
                'remove the folder'
            )
        return run
    if (work_dir / 'last_checkpoint').is_file():
        raise SettingError(f'{work_dir} holds a run that reproduce did not start: move it, or name another --work-dirs')
    run = dict(settings, rows_at_a_time=jobs, hardware=hardware(gpus), commit=commit(), versions=versions())
    work_dir.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run, indent=1) + '\n')
    return run


def run_row(
    row: Row, gpus: int, work_dir: Path, data_root: str | None, seed: int, options: list[str], jobs: int = 1
) -> dict:
    """Trains and tests a row and returns its record: the scores, the training time, and the settings of the run.

    If ``jobs`` is above 1, the row gets its share of the cores and prints to ``output.txt`` in its ``work_dir``.

    Raises:
        SettingError: Training or testing failed, nothing was detected, or ``work_dir`` holds a run with other settings.
    """
    run = record_start(row, gpus, work_dir, seed, options, jobs)
    env = dict(
        os.environ, PATH=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    )  # the scripts call python
    output = work_dir / 'output.txt' if jobs > 1 else None
    if output:
        env['OMP_NUM_THREADS'] = str(max(1, os.cpu_count() // jobs))
    for command in commands(row, gpus, work_dir, data_root, seed, options):
        print(f'\n== {" ".join(command)}' + (f' >> {output}' if output else ''), flush=True)
        with output.open('a') if output else nullcontext() as file:
            failed = subprocess.run(command, cwd=ROOT, env=env, stdout=file, stderr=file).returncode
        if failed:
            stage = 'training' if 'train' in command[1] else 'testing'
            raise SettingError(f'{stage} failed' + (f', see {output}' if output else ''))
    tested = json.loads(max(work_dir.glob('*/[0-9]*.json')).read_text())
    for key in row.metrics.values():
        if key not in tested:  # mmdet reports no AP if there is no detection
            raise SettingError(f'testing gave no {key}: nothing was detected')
    metrics = {title: percent(key, tested[key]) for title, key in row.metrics.items()}
    metrics = {title: round(100 - value, 2) if 'error' in title else value for title, value in metrics.items()}
    return dict(metrics=metrics, training_seconds=round(training_seconds(work_dir)), **run)


def percent(key: str, value: float) -> float:
    """A score in percent: COCO's are fractions, or -1 where there is no object to find; others are in percent."""
    return round(100 * value, 1) if key.startswith('coco/') and value >= 0 else round(value, 2)


def training_seconds(work_dir: Path) -> float:
    """Seconds spent in training iterations, over all parts of a resumed run, from mmengine's logged scalars."""
    total = 0.0
    for scalars in work_dir.glob('*/vis_data/scalars.json'):
        entries = [json.loads(line) for line in scalars.read_text().splitlines()]
        entries = [entry for entry in entries if 'loss' in entry]
        steps = [entry['step'] for entry in entries]
        every = min((b - a for a, b in zip(steps, steps[1:])), default=0)
        total += sum(entry['time'] * every for entry in entries)
    return total


def count_gflops(cfg: Config, shape: tuple[int, int]) -> float:
    """Multiply-adds of a config's model on one image of (height, width) pixels, in 10^9."""
    return sum(count_multiply_adds(build_model(cfg), tuple(shape)).values()) / 1e9


def gpu_days(row: Row) -> float:
    """Estimates the V100 days of training: three forward passes per image, at the speed of the paper's cost study."""
    cfg = row.load()
    if 'max_iters' in cfg.train_cfg:
        images = cfg.train_cfg.max_iters * cfg.auto_scale_lr.base_batch_size
    else:
        images = cfg.train_cfg.max_epochs * (IMAGENET if row.needs_mmpretrain else TRAIN2017)
    gflops = row.gflops if row.needs_mmpretrain else count_gflops(cfg, row.shape)
    return images * 3 * gflops * row.ms_per_gflop / 1000 / 86400


def below_bar(rows: list[Row], records: dict[str, dict]) -> list[str]:
    """The scores that are below a row's bar, one line each."""
    below = []
    for row in rows:
        measured = records.get(row.key, {}).get('metrics', {})
        for title, bar in row.bar.items():
            if measured.get(title, math.inf) < bar:
                below.append(f'{row.key}: {title} {measured[title]:g} is below {bar:g}')
    return below


def read_records(folder: Path) -> dict[str, dict]:
    """The records in ``folder``, by '<system>/<name>'."""
    return {f'{path.parent.name}/{path.stem}': json.loads(path.read_text()) for path in sorted(folder.glob('*/*.json'))}
