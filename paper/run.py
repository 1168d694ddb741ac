"""Running the rows of the paper's tables, keeping their figures, and setting them beside the paper's."""

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

TRAIN2017 = 117266  # the images of it that have objects
# Milliseconds per 10^9 multiply-adds of RetinaNet's forward pass on one V100, from the paper's cost study.
V100_MS = {'PVT': 76.9 / 285.8, 'ResNet': 55.9 / 239.3}


def share_batch(cfg: Config, gpus: int) -> tuple[int, int]:
    """The images per GPU and the accumulated steps that keep a config's batch on ``gpus`` GPUs.

    Raises:
        SettingError: The batch cannot be shared equally.
    """
    total, most = cfg.auto_scale_lr.base_batch_size, cfg.train_dataloader.batch_size
    if total % gpus:
        fitting = ', '.join(str(n) for n in range(1, total + 1) if total % n == 0)
        raise SettingError(f'the batch of {total} images cannot be shared by {gpus} GPUs: take {fitting}')
    share = total // gpus
    batch = max(n for n in range(1, most + 1) if share % n == 0)
    return batch, share // batch


def batch_options(cfg: Config, gpus: int) -> list[str]:
    """The ``--cfg-options`` that keep a config's batch on ``gpus`` GPUs: with accumulated steps, whatever counts
    iterations counts that many more of them."""
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
    """The command that trains a row, or goes on training it, and, once that is done, the one that tests it."""
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


def begin(row: Row, gpus: int, work_dir: Path, seed: int, options: list[str], jobs: int = 1) -> dict:
    """What a row's run is begun with, kept in ``run.json``; a run that goes on must go on with the same.

    Raises:
        SettingError: The folder holds a run that was begun otherwise.
    """
    batch, steps = share_batch(row.load(), gpus)
    settings = dict(
        config=row.config, options=options, seed=seed, gpus=gpus, images_per_gpu=batch, accumulated_steps=steps
    )
    kept = work_dir / 'run.json'
    if kept.is_file():
        run = json.loads(kept.read_text())
        changed = [f'{key} was {run.get(key)}, is {value}' for key, value in settings.items() if run.get(key) != value]
        if changed:
            raise SettingError(
                f'{work_dir} holds a run begun otherwise ({"; ".join(changed)}): go on as it was begun, or remove it'
            )
        return run
    if (work_dir / 'last_checkpoint').is_file():
        raise SettingError(f'{work_dir} holds a run that this tool did not begin: move it, or name another --work-dirs')
    run = dict(settings, rows_at_a_time=jobs, hardware=hardware(gpus), commit=commit(), versions=versions())
    work_dir.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(run, indent=1) + '\n')
    return run


def run_row(
    row: Row, gpus: int, work_dir: Path, data_root: str | None, seed: int, options: list[str], jobs: int = 1
) -> dict:
    """Trains and tests a row and returns its record.

    Where ``jobs`` rows run at a time, each has its share of the cores and prints to ``output.txt`` in its ``work_dir``.

    Raises:
        SettingError: Training or testing failed, nothing was detected, or the run was begun otherwise.
    """
    run = begin(row, gpus, work_dir, seed, options, jobs)
    env = dict(os.environ, PATH=f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')  # scripts call python
    output = work_dir / 'output.txt' if jobs > 1 else None
    if output:
        env['OMP_NUM_THREADS'] = str(max(1, os.cpu_count() // jobs))
    for command in commands(row, gpus, work_dir, data_root, seed, options):
        print(f'\n== {" ".join(command)}' + (f'\n   prints to {output}' if output else ''), flush=True)
        with output.open('a') if output else nullcontext() as file:
            failed = subprocess.run(command, cwd=ROOT, env=env, stdout=file, stderr=file).returncode
        if failed:
            raise SettingError(
                ('training' if 'train' in command[1] else 'testing') + ' failed' + (f', see {output}' if output else '')
            )
    tested = json.loads(max(work_dir.glob('*/*.json')).read_text())
    for key in row.metrics.values():
        if key not in tested:  # mmdet leaves them out then
            raise SettingError(f'testing gave no {key}: nothing was detected')
    metrics = {title: percent(key, tested[key]) for title, key in row.metrics.items()}
    return dict(metrics=metrics, training_seconds=round(training_seconds(work_dir)), **run)


def percent(key: str, value: float) -> float:
    """COCO's metrics come as a fraction (-1 where there is nothing to measure), mmseg's in percent."""
    return round(100 * value, 1) if key.startswith('coco/') and value >= 0 else value


def training_seconds(work_dir: Path) -> float:
    """The time of all training iterations, those before a resumption included, from mmengine's scalars."""
    total = 0.0
    for scalars in work_dir.glob('*/vis_data/scalars.json'):
        entries = [json.loads(line) for line in scalars.read_text().splitlines()]
        entries = [entry for entry in entries if 'loss' in entry]
        steps = [entry['step'] for entry in entries]
        every = min((b - a for a, b in zip(steps, steps[1:])), default=0)
        total += sum(entry['time'] * every for entry in entries)
    return total


def gpu_days(row: Row) -> float:
    """What training takes on a V100, estimated from the paper's own inference times: three forward passes an image."""
    cfg = row.load()
    is_segmenter = 'max_iters' in cfg.train_cfg
    images = (
        cfg.train_cfg.max_iters * cfg.auto_scale_lr.base_batch_size
        if is_segmenter
        else cfg.train_cfg.max_epochs * TRAIN2017
    )
    shape = (512, 512) if is_segmenter else (640, 960) if '_640_' in row.name else (800, 1280)
    gflops = sum(count_multiply_adds(build_model(cfg), shape).values()) / 1e9
    ms = V100_MS['ResNet' if row.name[0] in 'rx' else 'PVT']
    return images * 3 * gflops * ms / 1000 / 86400


def below_bar(rows: list[Row], records: dict[str, dict]) -> list[str]:
    """What fell short of what is asked for: of the PVTs, figure by figure."""
    short = []
    for row in rows:
        measured = records.get(f'{row.folder}/{row.name}', {}).get('metrics', {})
        for title, bar in row.bar.items():
            if row.name.startswith('pvt') and measured.get(title, math.inf) < bar:
                short.append(f'{row.folder}/{row.name}: {title} {measured[title]:g}, not {bar:g}')
    return short


def read_records(folder: Path) -> dict[str, dict]:
    """The kept records, by '<folder>/<name>'."""
    return {f'{path.parent.name}/{path.stem}': json.loads(path.read_text()) for path in sorted(folder.glob('*/*.json'))}
