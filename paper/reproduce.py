"""Trains and tests rows of the paper's tables and writes their scores beside the paper's.

  python -m paper.reproduce table2 --rows pvt_small r50 --gpus 8

runs those rows of Table 2 one after another. Rows that are done are skipped, interrupted ones are resumed, and a row
that fails does not stop the others. Runs are kept in work_dirs/reproduce, scores in results/<system>/<row>.json, and
the table in results/<table>.md.

The first argument is a table, or
  cost    the cost study: times RetinaNet on this machine (results/cost_time.md), then trains its rows
  learn   trains every system on the embedded digits: three quarters of an hour on a CPU with 2 cores
  fig5    times the backbones on images of growing size and draws results/fig5.png; trains nothing
  speed   times the backbones at 800x1216 and draws the paper's AP against it, results/speed.png; trains nothing
  docs    writes the scores in results/ into the tables of docs/paper.md; trains nothing
"""

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import torch

from pvt_mm.commands.launch import check_ops, one_line_errors
from pvt_mm.data.digits import write_digits
from pvt_mm.errors import SettingError

from .rows import ROOT, Row, counterparts, paper, select, table_rows
from .run import below_bar, gpu_days, read_records, run_row, share_batch
from .tables import fill_page, results_table

NEEDS_MMPRETRAIN = 'needs mmpretrain: call make setup EXTRAS=classification'
PAGE = ROOT / 'docs/paper.md'
# The arXiv version's numbers.
ARXIV = {f'arxiv{table["arxiv"]}': name for name, table in paper()['tables'].items() if 'arxiv' in table}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m paper.reproduce', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'table',
        type=lambda name: ARXIV.get(name, name),
        choices=[*paper()['tables'], 'learn', 'fig5', 'speed', 'docs'],
        help="what to reproduce, by the print's number of the table; arxivN is the arXiv version's table N",
    )
    parser.add_argument('--dry-run', action='store_true', help='print what would be done; run and write nothing')
    parser.add_argument(
        '--rows',
        nargs='+',
        help='rows by name (pvt_small_1x, retinanet/pvt_small_1x) or by backbone (pvt_small: all its schedules); '
        'default: all but those that paper.yml marks on_request',
    )
    parser.add_argument('--gpus', type=int, help='number of GPUs; default: all, for the digits one')
    parser.add_argument('--data-root', help="folder of the dataset, in place of the configs'")
    parser.add_argument(
        '--scale',
        choices=['paper', 'digits'],
        default='paper',
        help='digits: run small counterparts of the rows on the embedded digits, in minutes on a CPU',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        help='rows to run at a time on a CPU, each on its share of the cores; default: 1, for learn 2',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the random number generators; default: 0')
    parser.add_argument('--out', type=Path, default=ROOT / 'results', help='folder of scores and tables')
    parser.add_argument('--work-dirs', type=Path, default=ROOT / 'work_dirs/reproduce', help='folder of the runs')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='settings for every run, key=value as for tools/train.py'
    )
    args = parser.parse_args()
    if args.table == 'learn':
        args.scale = 'digits'
    if args.jobs is None:
        args.jobs = min(2, os.cpu_count()) if args.table == 'learn' and not torch.cuda.is_available() else 1
    if args.gpus is None:
        args.gpus = 1 if args.scale == 'digits' else max(1, torch.cuda.device_count())
    if args.gpus < 1:
        raise SettingError(f'--gpus {args.gpus} must be at least 1')
    if args.jobs < 1 or args.jobs > 1 and torch.cuda.is_available():
        raise SettingError(f'--jobs {args.jobs} must be at least 1, and 1 on GPUs')
    return args


def work_dir_of(row: Row, args: argparse.Namespace) -> Path:
    return args.work_dirs / row.system / row.name


def show_plan(rows: list[Row], args: argparse.Namespace) -> None:
    """Prints what would run, on how many GPUs, and for how long."""
    days = 0.0
    for row in rows:
        batch, steps = share_batch(row.load(), args.gpus)
        work_dir = work_dir_of(row, args)
        if (work_dir / 'result.json').is_file():
            state = 'done'
        else:
            state = 'to be resumed' if (work_dir / 'last_checkpoint').is_file() else 'to be run'
        line = f'{row.config}: {args.gpus} x {batch} images'
        if steps > 1:
            line += f', gradients accumulated over {steps} steps'
        line += f'; {state}'
        if args.scale == 'paper':
            estimate = gpu_days(row)
            days += estimate if state != 'done' else 0
            line += f'; {estimate:.1f} GPU-days'
        print(line)
    if days:
        print(
            f'{days:.1f} GPU-days in all, {days / args.gpus:.1f} days on {args.gpus} x V100: an estimate from the '
            "paper's inference times, at three forward passes per training image"
        )


def run_rows(rows: list[Row], args: argparse.Namespace) -> list[str]:
    """Runs the rows that are not done, ``args.jobs`` at a time, and returns a line for each that failed."""
    with ThreadPoolExecutor(args.jobs) as pool:
        return [problem for problem in pool.map(lambda row: run_or_skip(row, args), rows) if problem]


def run_or_skip(row: Row, args: argparse.Namespace) -> str | None:
    """Runs a row unless it is done and keeps its scores; returns what failed."""
    work_dir = work_dir_of(row, args)
    result = work_dir / 'result.json'
    if result.is_file():
        print(f'{row.config} is done; to test it again remove {result}, to train it again {work_dir}')
    else:
        try:
            _, steps = share_batch(row.load(), args.gpus)
            if steps > 1:
                print(
                    f'{row.config}: {args.gpus} GPUs keep the batch by accumulating gradients over {steps} steps; '
                    'batch norms that train see smaller batches'
                )
            data_root = args.data_root and str(Path(args.data_root).resolve())
            record = run_row(row, args.gpus, work_dir.resolve(), data_root, args.seed, args.cfg_options, args.jobs)
        except (SettingError, OSError, ValueError) as error:  # ValueError: a truncated JSON file of an earlier run
            print(f'{row.config}: {error}', file=sys.stderr)
            return f'{row.config} ({error})'
        result.write_text(json.dumps(record, indent=1) + '\n')
    kept = args.out / row.system / f'{row.name}.json'
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(result.read_text())
    return None


def write_table(rows: list[Row], title: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = os.path.relpath(ROOT, path.parent.resolve()) + '/'
    path.write_text(f'# {title}\n\n{results_table(rows, read_records(path.parent), prefix)}')
    print(f'\n{path.read_text()}\nwritten to {path}')


def reproduce_table(args: argparse.Namespace) -> None:
    """Runs the rows of a table and writes it."""
    all_rows = table_rows(args.table)
    rows = select(all_rows, args.rows)
    for row in all_rows:
        if row.on_request and not args.rows:
            print(f'{row.config} is left out: it runs only when named, --rows {row.name}')
    left_out = [row for row in rows if row.needs_mmpretrain and find_spec('mmpretrain') is None]
    rows = [row for row in rows if row not in left_out]
    for row in left_out if rows else ():
        print(f'{row.config} is left out: {NEEDS_MMPRETRAIN}')
    if not rows:
        raise SettingError(f'{args.table} {NEEDS_MMPRETRAIN}')
    if args.table == 'learn':
        name, title = 'learn', paper()['learn']['title']
    else:
        name, title = args.table, paper()['tables'][args.table]['title']
        if args.scale == 'digits':
            name, title = f'{name}_digits', f'{title}, on the embedded digits'
            all_rows, rows = counterparts(all_rows), counterparts(rows)
    measures_cost = args.table == 'cost' and args.scale == 'paper'
    table = args.out / f'{name}.md'
    if args.dry_run:
        if args.scale == 'digits':
            print('would write the embedded digits to data/digits')
        if measures_cost:
            print(f'would time RetinaNet on this machine and write {args.out / "cost_time.json"} and cost_time.md')
        show_plan(rows, args)
        print(f'would write {table}')
        return
    check_ops()
    if torch.cuda.is_available() and args.gpus > torch.cuda.device_count():
        raise SettingError(
            f'--gpus {args.gpus}: this machine has {torch.cuda.device_count()}; fewer GPUs keep the batch by '
            'accumulating gradients'
        )
    if args.scale == 'digits':
        write_digits(ROOT / 'data/digits')
    if measures_cost:
        from .cost import measure_cost

        measure_cost(args.out)  # takes seconds: before the training, which takes days
    failed = run_rows(rows, args)
    write_table(all_rows, title, table)
    below = below_bar(rows, read_records(args.out))
    for line in below:
        print(f'below the required score: {line}', file=sys.stderr)
    if failed:
        raise SettingError(f'{len(failed)} of {len(rows)} rows failed: {"; ".join(failed)}')
    if below:
        sys.exit(1)


@one_line_errors
def main() -> None:
    args = parse_args()
    if args.table == 'docs':
        page = fill_page(PAGE.read_text(), read_records(args.out))
        if args.dry_run:
            print(f'would fill the tables of {PAGE} with the scores in {args.out}')
        else:
            PAGE.write_text(page)
    elif args.table in ('fig5', 'speed'):
        if args.dry_run:
            place = args.out / args.table
            print(f'would time the backbones on this machine and write {place}.json and {args.table}.png')
        else:
            from .cost import draw_fig5, draw_speed

            (draw_fig5 if args.table == 'fig5' else draw_speed)(args.out)
    else:
        reproduce_table(args)


if __name__ == '__main__':
    main()
