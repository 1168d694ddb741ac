"""Runs rows of the paper's tables and sets their figures beside the paper's: ``python -m paper.reproduce table2``.

What is done is skipped, what was interrupted goes on, and a row that fails does not stop the others. The figures are
kept in results/<system>/<row>.json and the tables in results/<table>.md. ``learn`` runs all systems on the embedded
digits; ``cost`` also measures time (cost_time.md), ``fig5`` measures and draws cost against image size, and ``readme`` puts the kept
figures into the README's tables.
"""

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from pvt_mm.commands.launch import check_ops, one_line_errors
from pvt_mm.data.digits import write_digits
from pvt_mm.errors import SettingError

from .rows import ROOT, Row, find_rows, paper
from .run import below_bar, gpu_days, read_records, run_row, share_batch
from .tables import fill_readme, table_of

TABLES = [name for name, table in paper()['tables'].items() if 'folder' in table]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('table', choices=[*TABLES, 'learn', 'fig5', 'readme'], help='what to reproduce')
    parser.add_argument(
        '--rows',
        nargs='+',
        help='rows by config (pvt_small_1x) or backbone (pvt_small: all its schedules); default: all',
    )
    parser.add_argument('--gpus', type=int, help='default: all of this machine; one process for the digits')
    parser.add_argument(
        '--jobs',
        type=int,
        help='rows that run at a time, each on its share of the cores; default: 1, '
        'of learn 2 where there are cores for them',
    )
    parser.add_argument('--data-root', help="the dataset's folder, in place of the configs'")
    parser.add_argument(
        '--scale',
        choices=['paper', 'digits'],
        default='paper',
        help="digits: the rows' counterparts on the embedded digits, minutes on a CPU",
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--dry-run', action='store_true', help='print the plan and what it takes, run nothing')
    parser.add_argument('--out', type=Path, default=ROOT / 'results', help='where figures and tables are kept')
    parser.add_argument('--work-dirs', type=Path, default=ROOT / 'work_dirs/reproduce', help='where the runs are kept')
    parser.add_argument('--cfg-options', nargs='+', default=[], help='settings for every run, as for tools/train.py')
    args = parser.parse_args()
    if args.table == 'learn':
        args.scale = 'digits'
    if args.jobs is None:
        args.jobs = min(2, os.cpu_count()) if args.table == 'learn' and not torch.cuda.is_available() else 1
    if args.gpus is None:
        args.gpus = 1 if args.scale == 'digits' else max(1, torch.cuda.device_count())
    return args


def show_plan(rows: list[Row], args: argparse.Namespace) -> None:
    """Prints what would run, on what, and for how long."""
    days = 0.0
    for row in rows:
        batch, steps = share_batch(row.load(), args.gpus)
        work_dir = args.work_dirs / row.folder / row.name
        state = (
            'done'
            if (work_dir / 'result.json').is_file()
            else 'to be resumed'
            if (work_dir / 'last_checkpoint').is_file()
            else 'to be run'
        )
        line = f'{row.config}: {args.gpus} x {batch} images, {steps} step{"s"[: steps - 1]} accumulated; {state}'
        if args.scale == 'paper':
            takes = gpu_days(row)
            days += takes if state != 'done' else 0
            line += f'; {takes:.1f} GPU-days'
        print(line)
    if days:
        print(
            f'{days:.1f} GPU-days in all, {days / args.gpus:.1f} days on {args.gpus} GPU{"s"[: args.gpus - 1]}: an estimate '
            "for V100s, from the paper's own inference times; training takes about three forward passes an image"
        )


def run_rows(rows: list[Row], args: argparse.Namespace) -> list[str]:
    """Runs what is not done yet, ``args.jobs`` rows at a time, and returns what failed."""
    with ThreadPoolExecutor(args.jobs) as pool:
        return [problem for problem in pool.map(lambda row: run_or_skip(row, args), rows) if problem]


def run_or_skip(row: Row, args: argparse.Namespace) -> str | None:
    """Runs a row unless it is done, keeps its figures, and returns what failed."""
    work_dir = args.work_dirs / row.folder / row.name
    result = work_dir / 'result.json'
    if result.is_file():
        print(f'{row.config} is done; remove {result} to test it again, {work_dir} to train it anew')
    else:
        try:
            _, steps = share_batch(row.load(), args.gpus)
            if steps > 1:
                print(
                    f'{row.config}: on {args.gpus} GPUs the batch is kept by accumulating {steps} steps; norms '
                    'that learn from the batch see less of it at a time'
                )
            data_root = args.data_root and str(Path(args.data_root).resolve())
            record = run_row(row, args.gpus, work_dir.resolve(), data_root, args.seed, args.cfg_options, args.jobs)
        except (SettingError, OSError, ValueError) as error:  # and what a broken disk leaves
            print(f'{row.config}: {error}', file=sys.stderr)
            return f'{row.config} ({error})'
        result.write_text(json.dumps(record, indent=1) + '\n')
    kept = args.out / row.folder / f'{row.name}.json'
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(result.read_text())
    return None


def write_table(rows: list[Row], title: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = os.path.relpath(ROOT, path.parent.resolve()) + '/'
    path.write_text(f'# {title}\n\n{table_of(rows, read_records(path.parent), prefix)}')
    print(f'\n{path.read_text()}\nwritten to {path}')


@one_line_errors
def main() -> None:
    args = parse_args()
    if args.gpus < 1:
        raise SettingError(f'--gpus {args.gpus} must be at least 1')
    if args.jobs < 1 or args.jobs > 1 and torch.cuda.is_available():
        raise SettingError(f'--jobs {args.jobs}: on a CPU it must be at least 1, on GPUs it is 1')
    if args.table == 'fig5':
        from .cost import draw_fig5

        return draw_fig5(args.out)
    if args.table == 'readme':
        readme = ROOT / 'README.md'
        readme.write_text(fill_readme(readme.read_text(), read_records(args.out)))
        return
    rows = find_rows(args.table, args.rows, args.scale)
    if args.dry_run:
        return show_plan(rows, args)
    check_ops()
    if torch.cuda.is_available() and args.gpus > torch.cuda.device_count():
        raise SettingError(
            f'--gpus {args.gpus}: this machine has {torch.cuda.device_count()}; on fewer GPUs the batch is '
            'kept by gradient accumulation'
        )
    if args.scale == 'digits':
        write_digits(ROOT / 'data/digits')
    if args.table == 'cost' and args.scale == 'paper':
        from .cost import measure_cost

        measure_cost(args.out)  # seconds, before what takes days
    failed = run_rows(rows, args)
    if args.table == 'learn':
        title = 'Every system on the embedded digits, PVT beside a ResNet of about the same cost'
    else:
        title = paper()['tables'][args.table]['title'] + (', on the embedded digits' if args.scale == 'digits' else '')
    name = f'{args.table}_digits' if args.scale == 'digits' and args.table != 'learn' else args.table
    write_table(find_rows(args.table, scale=args.scale), title, args.out / f'{name}.md')
    short = below_bar(rows, read_records(args.out))
    for problem in short:
        print(f'below what is asked for: {problem}', file=sys.stderr)
    if failed:
        raise SettingError(f'{len(failed)} of {len(rows)} rows failed: {"; ".join(failed)}')
    if short:
        sys.exit(1)


if __name__ == '__main__':
    main()
