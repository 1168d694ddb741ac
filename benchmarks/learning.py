"""That training learns and resumes on this device: ``python -m benchmarks.learning CONFIG --data-root DIR``.

Trains a config for some time as tools/train.py does and ends the run by SIGTERM, as a cluster does. Then resumes it
from the checkpoint before the last and sets the losses beside those of the run that went on. Then trains from the start
as one process of a group, over NCCL on a card and gloo on a CPU, and compares again. Writes
benchmarks/results/learning_<system>_<device>_<precision>.json and .md.
"""

import argparse
import json
import socket
import time
from multiprocessing.context import BaseContext
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from paper.tables import markdown
from pvt_mm.commands.dist import EX_TEMPFAIL
from pvt_mm.commands.launch import one_line_errors
from pvt_mm.errors import SettingError

from .common import keep, parse
from .measure import processes, run_main

LEAST = 12  # iterations
BACKENDS = dict(cuda='NCCL', cpu='gloo')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--data-root', required=True, help="the dataset's folder")
    parser.add_argument('--train-seconds', type=float, default=90, help='how long the first run trains')
    parser.add_argument('--every', type=int, default=10, help='epochs from one checkpoint to the next')
    parser.add_argument('--resumed', type=int, default=2, help='epochs that the other two runs train')
    parser.add_argument('--cfg-options', nargs='+', default=[], help='settings of the config, as for tools/train.py')
    return parse(parser)


def losses(work_dir: Path) -> dict[int, float]:
    """The loss of each iteration that a run logged."""
    found = {}
    for path in work_dir.glob('*/vis_data/scalars.json'):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if 'loss' in row:
                found[row['step']] = row['loss']
    return found


def flags(args: argparse.Namespace, work_dir: Path, epochs: int) -> list[str]:
    """Those of tools/train.py for a run of ``epochs`` epochs that logs every loss."""
    settings = [
        f'train_cfg.max_epochs={epochs}',
        f'train_cfg.val_interval={epochs + 1}',
        f'default_hooks.checkpoint.interval={args.every}',
        'default_hooks.checkpoint.max_keep_ckpts=2',
        'default_hooks.logger.interval=1',
        'log_processor.window_size=1',
        'randomness.seed=0',
    ]
    amp = []
    if args.precision != 'float32':
        amp, settings = ['--amp'], [*settings, f'optim_wrapper.dtype={args.precision}']
    places = ['--data-root', args.data_root, '--work-dir', str(work_dir)]
    return [args.config, *amp, *places, '--cfg-options', *settings, *args.cfg_options]


def train(
    context: BaseContext, argv: list[str], work_dir: Path, seconds: float | None = None, **env: str
) -> dict[int, float]:
    """Runs what tools/train.py runs, in a process of its own, to its end, or for ``seconds`` after its first loss and
    ``LEAST`` iterations, then sends SIGTERM. Returns the losses.

    Raises:
        SettingError: It failed. The message holds its last line.
    """
    log = work_dir.with_suffix('.log')
    process = context.Process(target=run_main, args=('pvt_mm.commands.train', argv, log, env))
    process.start()
    try:
        if seconds is not None:
            while process.is_alive() and not losses(work_dir):
                time.sleep(0.2)
            begin = time.monotonic()
            while process.is_alive() and (time.monotonic() - begin < seconds or len(losses(work_dir)) < LEAST):
                time.sleep(0.2)
            process.terminate()
        process.join()
    finally:
        process.kill()
    print(log.read_text(), flush=True)
    if process.exitcode not in (0, EX_TEMPFAIL):
        last = (log.read_text().strip() or 'no output').splitlines()[-1]
        raise SettingError(f'{work_dir.name}: train.py ended with code {process.exitcode}: {last}')
    return losses(work_dir)


def group_of_one() -> dict[str, str]:
    """The environment that torchrun makes for one process."""
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    return dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))


def beside(name: str, found: dict[int, float], whole: dict[int, float]) -> dict:
    """A run's losses beside those of the first run at the same iterations, as a row."""
    same = sorted(found.keys() & whole.keys())
    if not same:
        raise SettingError(f'{name}: its {len(found)} iterations are none of the {len(whole)} of the first run')
    off = [abs(found[i] - whole[i]) / abs(whole[i]) for i in same]
    return dict(run=name, first=same[0], last=same[-1], difference_at_first=off[0], largest_difference=max(off))


def text_of(args: argparse.Namespace, whole: dict[int, float], ends: tuple[float, float], rows: list[dict]) -> str:
    cells = [
        [
            row['run'],
            f'{row["first"]} to {row["last"]}',
            f'{row["difference_at_first"]:.1e}',
            f'{row["largest_difference"]:.1e}',
        ]
        for row in rows
    ]
    return (
        f'# Training {args.config}, {args.precision}\n\n{len(whole)} iterations in {args.train_seconds:.0f} s: the '
        f'loss goes from {ends[0]:.3f} to {ends[1]:.3f}, the means of its first and last tenth.\n\n'
        'Relative differences of the loss, beside the same iterations of that run; 0 is bit-identical:\n\n'
        f'{markdown(["run", "iterations", "at the first", "largest"], cells)}'
    )


@one_line_errors
def main() -> None:
    args, context = parse_args(), processes('fork')[0]
    name, rows = f'learning_{Path(args.config).parent.name}', []
    with TemporaryDirectory() as folder:
        dirs = [Path(folder, run) for run in ('whole', 'resumed', 'group')]
        whole = train(context, flags(args, dirs[0], 10**6), dirs[0], args.train_seconds)
        tenth = max(len(whole) // 10, 3)
        values = [whole[step] for step in sorted(whole)]
        ends = mean(values[:tenth]), mean(values[-tenth:])

        def write(done: bool) -> None:  # elsewhere: it asks for the card's name, after which CUDA works in no fork
            what = (args, name, dict(losses=values, rows=rows), text_of(args, whole, ends, rows), done)
            process = context.Process(target=keep, args=what)
            process.start()
            process.join()

        write(False)
        saved = sorted(int(path.stem.removeprefix('epoch_')) for path in dirs[0].glob('epoch_*.pth'))
        if not saved:
            raise SettingError(f'{len(whole)} iterations reached no checkpoint: less for --every, or more seconds')
        again = [*flags(args, dirs[1], saved[0] + args.resumed), '--resume', str(dirs[0] / f'epoch_{saved[0]}.pth')]
        rows.append(beside('resumed', train(context, again, dirs[1]), whole))
        write(False)
        group = [*flags(args, dirs[2], args.resumed), '--launcher', 'pytorch']
        found = train(context, group, dirs[2], **group_of_one())
        rows.append(beside(f'one process over {BACKENDS[args.device]}', found, whole))
        write(True)
    if not ends[1] < ends[0]:
        raise SettingError(f'the loss does not fall: {ends[0]:.3f}, then {ends[1]:.3f}')


if __name__ == '__main__':
    main()
