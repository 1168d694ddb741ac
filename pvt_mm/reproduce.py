"""Running the rows of the paper's tables, keeping their figures, and setting them beside the paper's."""
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import torch
from mmengine.config import Config

from .errors import SettingError
from .flops import build_model, count_multiply_adds
from .measure import hardware, versions
from .models import PVT
from .paper import CONFIGS, paper

ROOT = CONFIGS.parent
TRAIN2017 = 117266  # the images of it that have objects
# Milliseconds per 10^9 multiply-adds of RetinaNet's forward pass on one V100, from the paper's cost study.
V100_MS = {'PVT': 76.9 / 285.8, 'ResNet': 55.9 / 239.3}
# What trains in a row's place at --scale digits, by the beginning of its name.
DIGITS = {'pvt': 'pvt_nano_digits', 'r': 'r18_nano_digits', 'x': 'r18_nano_digits', 'vit': 'vit_nano_digits'}


_LOADING = Lock()  # mmengine loads one config at a time


@dataclass
class Row:
    """One run: a config of the repository and what the paper says of it."""
    folder: str
    name: str
    metrics: dict[str, str]  # a column's title: the metric's name in mmengine's log
    backbone: str = ''
    paper: list = field(default_factory=list)
    bar: dict[str, float] = field(default_factory=dict)
    tta: bool = False

    @property
    def config(self) -> str:
        return f'configs/{self.folder}/{self.name}.py'

    def load(self) -> Config:
        with _LOADING:
            return Config.fromfile(ROOT / self.config)


def find_rows(table: str, wanted: list[str] | None = None, scale: str = 'paper') -> list[Row]:
    """The rows of a table, or of ``learn``, the eight runs on the embedded digits.

    Args:
        table: A table's name in ``configs/paper.yml`` that has configs, or 'learn'.
        wanted: Rows by their config's name ('pvt_small_1x') or its backbone's ('pvt_small': with all schedules).
        scale: 'digits' puts each row's counterpart on the embedded digits in its place.

    Raises:
        SettingError: The table has no such row, or a row no counterpart.
    """
    if table == 'learn':
        rows = [Row(folder, name, **settings) for folder, settings in paper()['learn'].items()
                for name in ('pvt_nano_digits', 'r18_nano_digits')]
    else:
        settings = paper()['tables'][table]
        rows = [Row(settings['folder'], name, settings['metrics'], row['backbone'], row['paper'], tta=row.get('tta', False))
                for name, row in settings['rows'].items()]
    for name in wanted or []:
        if not any(name in (row.name, row.name.rpartition('_')[0]) for row in rows):
            raise SettingError(f'{table} has no row {name!r}; it has {", ".join(row.name for row in rows)}')
    rows = [row for row in rows if not wanted or row.name in wanted or row.name.rpartition('_')[0] in wanted]
    if scale == 'digits' and table != 'learn':
        counterparts = {}
        for row in rows:
            name = next(name for start, name in sorted(DIGITS.items(), reverse=True) if row.name.startswith(start))
            counterparts[name] = Row(row.folder, name, **paper()['learn'][row.folder])
        rows = list(counterparts.values())
    return rows


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
            options += [f'param_scheduler.{i}.{key}={scheduler[key] * steps}' for key in ('begin', 'end') if key in scheduler]
    return options


def commands(row: Row, gpus: int, work_dir: Path, data_root: str | None, seed: int,
             options: list[str]) -> Iterator[list[str]]:
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
    yield [*command('test', row.config, str(checkpoint)), *shared, *(['--tta'] if row.tta else []),
           *(['--cfg-options', *options] if options else [])]


def begin(row: Row, gpus: int, work_dir: Path, seed: int, options: list[str], jobs: int = 1) -> dict:
    """What a row's run is begun with, kept in ``run.json``; a run that goes on must go on with the same.

    Raises:
        SettingError: The folder holds a run that was begun otherwise.
    """
    batch, steps = share_batch(row.load(), gpus)
    settings = dict(config=row.config, options=options, seed=seed, gpus=gpus, images_per_gpu=batch, accumulated_steps=steps)
    kept = work_dir / 'run.json'
    if kept.is_file():
        run = json.loads(kept.read_text())
        changed = [f'{key} was {run.get(key)}, is {value}' for key, value in settings.items() if run.get(key) != value]
        if changed:
            raise SettingError(f'{work_dir} holds a run begun otherwise ({"; ".join(changed)}): go on as it was begun, or '
                               'remove it')
        return run
    if (work_dir / 'last_checkpoint').is_file():
        raise SettingError(f'{work_dir} holds a run that this tool did not begin: move it, or name another --work-dirs')
    run = dict(settings, rows_at_a_time=jobs, hardware=hardware(gpus), commit=commit(), versions=versions())
    work_dir.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(run, indent=1) + '\n')
    return run


def run_row(row: Row, gpus: int, work_dir: Path, data_root: str | None, seed: int, options: list[str], jobs: int = 1) -> dict:
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
            raise SettingError(('training' if 'train' in command[1] else 'testing') + ' failed' + (f', see {output}' if output else ''))
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
    total = 0.
    for scalars in work_dir.glob('*/vis_data/scalars.json'):
        entries = [json.loads(line) for line in scalars.read_text().splitlines()]
        entries = [entry for entry in entries if 'loss' in entry]
        steps = [entry['step'] for entry in entries]
        every = min((b - a for a, b in zip(steps, steps[1:])), default=0)
        total += sum(entry['time'] * every for entry in entries)
    return total


def commit() -> str:
    """The repository's commit, marked where files other than the kept figures differ from it."""
    git = ['git', '-C', str(ROOT)]
    try:
        name = subprocess.run([*git, 'rev-parse', '--short=12', 'HEAD'], check=True, capture_output=True, text=True).stdout
        kept = [':!results', ':!benchmarks/results', ':!README.md']
        changed = subprocess.run([*git, 'status', '--porcelain', '--', '.', *kept], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
    return name.strip() + (' with changes' if changed.strip() else '')


def gpu_days(row: Row) -> float:
    """What training takes on a V100, estimated from the paper's own inference times: three forward passes an image."""
    cfg = row.load()
    is_segmenter = 'max_iters' in cfg.train_cfg
    images = (cfg.train_cfg.max_iters * cfg.auto_scale_lr.base_batch_size if is_segmenter else
              cfg.train_cfg.max_epochs * TRAIN2017)
    shape = (512, 512) if is_segmenter else (640, 960) if '_640_' in row.name else (800, 1280)
    gflops = sum(count_multiply_adds(build_model(cfg), shape).values()) / 1e9
    ms = V100_MS['ResNet' if row.name[0] in 'rx' else 'PVT']
    return images * 3 * gflops * ms / 1000 / 86400


def cell(title: str, row: Row, record: dict | None) -> str:
    """'paper / measured (difference)'; of the digits, 'measured'."""
    measured = record['metrics'].get(title) if record else None
    shown = '' if measured is None else f'{measured:g}'
    if not row.paper:
        return shown
    expected = dict(zip(row.metrics, row.paper)).get(title)
    if isinstance(expected, (int, float)) and measured is not None:
        return f'{expected:.1f} / {shown} ({measured - expected:+.1f})'
    return f'{expected:.1f} /{" " + shown if shown else ""}' if isinstance(expected, (int, float)) else f'{expected} / {shown}'


def table_of(rows: list[Row], records: dict[str, dict], prefix: str = '') -> str:
    """The rows as a Markdown table.

    Args:
        records: What was measured, by '<folder>/<name>'; a row that is not among them is unfinished.
        prefix: From the table's file to the repository's root, for the links.
    """
    titles = list(dict.fromkeys(title for row in rows for title in row.metrics))
    names = [f'{title} (paper / measured)' if any(row.paper for row in rows) else title for title in titles]
    bars = any(row.bar for row in rows)
    head = ['row', *names, *(['asked for'] if bars else []), 'training', 'run']
    lines = [head, ['---'] * len(head)]
    for row in rows:
        record = records.get(f'{row.folder}/{row.name}')
        cells = [cell(title, row, record) if title in row.metrics else '' for title in titles]
        if bars:
            asked = ', '.join(f'{title} {bar:g}' for title, bar in row.bar.items())
            cells.append(asked if row.name.startswith('pvt') else '')
        label = ' '.join(filter(None, [row.backbone, f'[{row.folder}/{row.name}]({prefix}{row.config})']))
        lines.append([label, *cells, duration(record) if record else '', origin(record) if record else 'unfinished'])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


def readme_tables(records: dict[str, dict]) -> str:
    """Every row of every table with its config, the paper's figures and the measured ones: the README's tables."""
    parts = [table1()]
    for name, table in paper()['tables'].items():
        if 'folder' not in table:
            continue
        rows = find_rows(name)
        main = [title for title, key in rows[0].metrics.items() if key.endswith(('mAP', 'mIoU'))]
        head = ['backbone', 'config', 'parameters (M), paper', *(f'{t}, {whose}' for t in main for whose in ('paper', 'measured'))]
        lines = [head, ['---'] * len(head)]
        for row in rows:
            expected, record = dict(zip(row.metrics, row.paper)), records.get(f'{row.folder}/{row.name}')
            figures = [str(figure) for title in main
                       for figure in (expected[title], record['metrics'].get(title, '') if record else '')]
            params = table['rows'][row.name].get('params', '')
            lines.append([row.backbone, f'[{row.name}]({row.config})', str(params), *figures])
        parts.append(f'**{table["title"]}**\n\n' + '\n'.join(f'| {" | ".join(line)} |' for line in lines))
    return '\n\n'.join(parts)


def table1() -> str:
    """The PVTs of Table 1: what the paper says, and what is counted here."""
    table = paper()['tables']['table1']
    lines = ['| backbone | model | parameters (M), paper | counted | GFLOPs at 224x224, paper | counted | '
             'top-1 error (%), paper | measured |', '|---' * 8 + '|']
    for name, row in table['models'].items():
        with torch.device('meta'):
            model = PVT(row['arch'], num_classes=1000).eval()
        params = sum(p.numel() for p in model.parameters()) / 1e6
        gflops = sum(count_multiply_adds(model, (224, 224)).values()) / 1e9
        lines.append(f"| {name} | `PVT('{row['arch']}', num_classes=1000)` | {row['params']} | {params:.2f} | "
                     f"{row['gflops']} | {gflops:.2f} | {row['error']} | |")
    return f'**{table["title"]}**\n\n' + '\n'.join(lines)


def fill_section(text: str, name: str, content: str) -> str:
    """``text`` with new content between '<!-- NAME -->' and the '<!-- end -->' after it.

    Raises:
        SettingError: There is no such place in it.
    """
    begin, end = f'<!-- {name} -->', '<!-- end -->'
    before, found, rest = text.partition(begin)
    if not found:
        raise SettingError(f'there is no line {begin} to put the table behind')
    _, _, after = rest.partition(end)
    return f'{before}{begin}\n\n{content.rstrip()}\n\n{end}{after}'


def fill_readme(readme: str, records: dict[str, dict]) -> str:
    """The README's text with its tables made anew."""
    readme = fill_section(readme, 'reproduce.py: rows', readme_tables(records))
    return fill_section(readme, 'reproduce.py: learn', table_of(find_rows('learn'), records))


def duration(record: dict) -> str:
    minutes = record['training_seconds'] / 60
    return f'{minutes:.1f} min' if minutes < 120 else f'{minutes / 60:.1f} h'


def origin(record: dict) -> str:
    accumulated = f', {record["accumulated_steps"]} steps accumulated' if record['accumulated_steps'] > 1 else ''
    at_a_time = f', {record["rows_at_a_time"]} rows at a time' if record.get('rows_at_a_time', 1) > 1 else ''
    changed = f', {" ".join(record["options"])}' if record['options'] else ''
    return f'{record["hardware"]}{at_a_time}{accumulated}, seed {record["seed"]}, {record["commit"]}{changed}'


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
