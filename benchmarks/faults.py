"""Kills training runs at random moments, resumes them, and compares their ends with those of runs left alone:
``python -m benchmarks.faults``.

The runs train the small models of the embedded digits with tools/train.py and tools/dist_train.sh. A kill is SIGKILL to
all processes of a run at once; every third comes while a checkpoint is written. Other runs meet a full disk (a tmpfs of
a random size, which needs root), and damaged checkpoints. Writes benchmarks/results/faults_cpu.json and .md. The exit
code is 1 if a run did not resume from its newest whole checkpoint or did not end like the one that was left alone.
"""

import argparse
import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

from paper.tables import markdown
from pvt_mm.commands.launch import one_line_errors
from pvt_mm.data.digits import write_digits
from pvt_mm.engine import latest_checkpoint
from pvt_mm.errors import SettingError
from pvt_mm.weights.reading import read_checkpoint

from .common import keep

ROOT = Path(__file__).parents[1]
KILLS_PER_RUN = 4
SAVE_EVERY = 3  # iterations
TIMEOUT = 300  # seconds that a run may take

COMMON = {
    'report': False,
    'train_cfg.max_epochs': 2,
    'default_hooks.logger.interval': 1,
    'default_hooks.checkpoint.max_keep_ckpts': 2,
    'default_hooks.checkpoint.save_best': 'auto',
}
WORKERS = {'train_dataloader.num_workers': 2, 'train_dataloader.persistent_workers': True}
DROP_PATH = {'model.backbone.drop_path_rate': 0.2}
ACCUMULATION = {'optim_wrapper.accumulative_counts': 2}
EMA = {'custom_hooks': [dict(type='EMAHook')]}
BY_ITERATIONS = {
    'train_cfg': dict(_delete_=True, type='IterBasedTrainLoop', max_iters=16, val_interval=5),
    'param_scheduler': [dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=16)],
    'default_hooks.checkpoint.by_epoch': False,
    'default_hooks.checkpoint.interval': 8,
    'log_processor.by_epoch': False,
}
# What is killed: the system, the number of processes, and settings beside the common ones. All flip their images.
SCENARIOS = {
    'RetinaNet, 2 workers, drop path': ('retinanet', 1, WORKERS | DROP_PATH),
    'Semantic FPN by iterations, accumulation, EMA': ('semantic_fpn', 1, BY_ITERATIONS | ACCUMULATION | EMA),
    'RetinaNet, 2 processes': ('retinanet', 2, {}),
    'Mask R-CNN, 2 workers, accumulation': ('mask_rcnn', 1, WORKERS | ACCUMULATION),
    'DETR, 2 workers, EMA': ('detr', 1, WORKERS | EMA),
    'Semantic FPN, 2 processes, 2 workers each': ('semantic_fpn', 2, WORKERS | DROP_PATH),
    'Mask R-CNN, EMA': ('mask_rcnn', 1, EMA),
    'RetinaNet, accumulation, EMA': ('retinanet', 1, ACCUMULATION | EMA),
    'Semantic FPN by iterations, 2 processes': ('semantic_fpn', 2, BY_ITERATIONS),
    'DETR, drop path': ('detr', 1, DROP_PATH),
}
HEAD = ['kills', 'while saving', 'before a checkpoint', 'resumed from the newest', 'iterations lost, at most', 'runs']
HEAD += ['bit-identical']
DISKS = """
{disks} runs met a full disk of a random size, and {damaged} times the newest checkpoint was damaged at random.
"""


@dataclass
class Run:
    """A training run of a scenario in a folder of its own."""

    config: Path
    processes: int
    data_root: Path
    work_dir: Path

    def start(self) -> subprocess.Popen:
        """Starts it, or goes on with what its folder holds."""
        train = [sys.executable, ROOT / 'tools/train.py', self.config]
        if self.processes > 1:
            train = ['bash', ROOT / 'tools/dist_train.sh', self.config, str(self.processes)]
        flags = ['--resume', '--save-every', str(SAVE_EVERY), '--data-root', self.data_root]
        path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
        env = {**os.environ, 'PATH': path, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
        return self.popen([*map(str, [*train, *flags, '--work-dir', self.work_dir])], env)

    def popen(self, command: list[str], env: dict[str, str]) -> subprocess.Popen:
        """Starts a command that prints to the log."""
        with self.log.open('w') as log:
            return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)

    @property
    def log(self) -> Path:
        return self.work_dir.with_suffix('.log')

    def finish(self) -> int:
        """Lets it come to its end; its exit code."""
        return self.start().wait(TIMEOUT)

    def entries(self) -> list[dict]:
        """What its last start logged of its iterations."""
        return [entry for entry in map(parse_line, self.logs()[-1].read_text().splitlines()) if 'loss' in entry]

    def iteration(self) -> int:
        """The iteration that it logged last."""
        return self.entries()[-1]['step']

    def seconds(self) -> float:
        """How long its last start trained."""
        return sum(entry['time'] for entry in self.entries())

    def logs(self) -> list[Path]:
        """The files of the figures that it logged, one of each start."""
        return sorted(self.work_dir.glob('*/vis_data/scalars.json'))

    def end(self) -> dict:
        """What it came to: the training state of its last checkpoint, without times and paths."""
        return training_state(latest_checkpoint(str(self.work_dir)))


def parse_line(line: str) -> dict:
    """An entry of a log; nothing of one that a kill tore."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return {}


def training_state(path: str) -> dict:
    checkpoint = read_checkpoint(path, 'cpu')
    hub = checkpoint['message_hub']
    losses = {name: buffer for name, buffer in hub['log_scalars'].items() if not re.search('time|memory', name)}
    parts = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
    score = hub['runtime_info'].get('best_score')
    return {
        **{part: checkpoint.get(part) for part in parts},
        'log': losses,
        'best': score,
        'iteration': checkpoint['meta']['iter'],
    }


def equal(a, b) -> bool:
    """Whether two values are the same, bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and np.array_equal(a, b)
    if isinstance(a, HistoryBuffer):
        return equal(a.data[0], b.data[0]) and equal(a.data[1], b.data[1])
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def kill(process: subprocess.Popen) -> None:
    """SIGKILL to a process and all that it started, at once."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.suspend()  # none starts another, or ends on its own, meanwhile
    for member in family:
        member.kill()
    process.wait()
    psutil.wait_procs(family)


@dataclass
class Tally:
    """What the kills of a scenario led to."""

    kills: int = 0
    saving: int = 0  # kills while a checkpoint was written
    anew: int = 0  # kills before a checkpoint was written
    resumed: int = 0  # kills after which the run went on from its newest checkpoint
    lost: int = 0  # iterations that were trained again after a kill, at most
    runs: int = 0
    identical: int = 0

    def holds(self) -> bool:
        return self.kills == self.resumed + self.anew and self.identical == self.runs


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> bool:
    """Waits until ``condition()``; False if the process ends before."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if process.poll() is not None:
            return False
        if time.monotonic() > deadline:
            kill(process)
            raise SettingError(f'a run took more than {TIMEOUT} s')
        time.sleep(0.001)
    return True


def kill_at_random(run: Run, seconds: float, while_saving: bool) -> bool:
    """Starts a run and kills it at a random moment of its training; False if it ended before."""
    logs = len(run.logs())
    process = run.start()
    if not wait_for(lambda: len(run.logs()) > logs and run.logs()[-1].read_text().count('loss') > 0, process):
        return False
    if while_saving:
        wait_for(lambda: any(run.work_dir.glob('.*.part')), process)
        time.sleep(random.uniform(0, 0.02))
    else:
        time.sleep(random.uniform(0, seconds / 2))
    if process.poll() is not None:
        return False
    kill(process)
    return True


def kill_and_resume(run: Run, seconds: float, kills: int, left_alone: dict, tally: Tally, faults: list[str]) -> None:
    """Kills a new run at random moments, resumes it each time, and lets it end.

    Args:
        run: The run.
        seconds: How long a run that is left alone trains.
        kills: How often it is killed; fewer times if it ends before.
        left_alone: What a run that is left alone comes to.
        tally: Counts what happens.
        faults: What goes wrong is added.
    """
    expected = None  # the iteration that a start goes on from
    for i in range(kills + 1):
        killed = i < kills and kill_at_random(run, seconds, while_saving=i % 3 == 2)
        if i == kills:
            run.finish()
        if expected is not None:
            resumed = re.findall(r'resumed epoch: \d+, iter: (\d+)', run.log.read_text())
            tally.resumed += resumed == [str(expected)]
        if not killed:
            break
        tally.kills += 1
        tally.saving += any(run.work_dir.glob('.*.part'))
        newest = latest_checkpoint(str(run.work_dir))
        expected = newest and iteration(newest)
        tally.anew += newest is None
        tally.lost = max(tally.lost, run.iteration() - (expected or 0))
    tally.runs += 1
    tally.identical += ends_like(run, left_alone, faults)


def iteration(checkpoint: str) -> int:
    return read_checkpoint(checkpoint, 'cpu')['meta']['iter']


def ends_like(run: Run, left_alone: dict, faults: list[str]) -> bool:
    """Whether a run came to the same as the one that was left alone; what went wrong is added to ``faults``."""
    try:
        end = run.end()
    except SettingError as error:
        faults.append(f'{error}; its log ends: {run.log.read_text()[-500:]}')
        return False
    differ = [part for part in left_alone if not equal(end[part], left_alone[part])]
    if differ:
        faults.append(f'{run.work_dir.name} ends with another {", ".join(differ)}')
    return not differ


@contextmanager
def disk(folder: Path, kib: int) -> Iterator[Callable[[int], None]]:
    """A disk of so many KiB at ``folder``; what it yields changes their number."""
    folder.mkdir()

    def mount(kib: int, *options: str) -> None:
        size = ','.join([*options, f'size={kib}k'])
        done = subprocess.run(['mount', '-t', 'tmpfs', '-o', size, 'tmpfs', folder], capture_output=True, text=True)
        if done.returncode:
            raise SettingError(f'a full disk needs the right to mount one ({done.stderr.strip()}): --disks 0 leaves it')

    mount(kib)
    try:
        yield lambda kib: mount(kib, 'remount')
    finally:
        subprocess.run(['umount', folder], check=True)


def fill_disk(run: Run, left_alone: dict, whole: int, faults: list[str]) -> None:
    """Lets a run meet a full disk, makes room, and resumes it.

    Args:
        run: The run.
        left_alone: What a run that is left alone comes to.
        whole: The KiB that a run needs.
        faults: What goes wrong is added.
    """
    folder = run.work_dir.parent
    with disk(folder, random.randint(whole // 20, whole * 3 // 4)) as resize:
        code = run.finish()
        last = run.log.read_text().splitlines()[-1]
        if code != 1 or not re.search('No space left|free', last):
            faults.append(f'full disk: exit code {code}, last line {last[:300]}')
        for path in run.work_dir.glob('*.pth'):
            iteration(str(path))  # raises where it is not whole
        if list(run.work_dir.glob('.*.part')):
            faults.append('full disk: a partial file is left')
        resize(4 * whole)
        run.finish()
        ends_like(run, left_alone, faults)


def damage(path: Path) -> str:
    """Damages a file in a random way, and says how."""
    content = bytearray(path.read_bytes())
    how, place = random.choice(['cut', 'flipped', 'zeroed', 'emptied']), random.randrange(len(content))
    if how == 'cut':
        del content[place:]
    elif how == 'flipped':
        content[place] ^= 1 << random.randrange(8)
    elif how == 'zeroed':
        content[place : place + 4096] = bytes(len(content[place : place + 4096]))
    else:
        content.clear()
    path.write_bytes(content)
    return f'{how} at byte {place} of {path.name}'


def damage_newest(run: Run, faults: list[str]) -> None:
    """Damages the newest checkpoint of a run that ended: the one before it must be found, or nothing have been lost."""
    newest = Path(latest_checkpoint(str(run.work_dir)))
    whole, content = training_state(str(newest)), newest.read_bytes()
    how = damage(newest)
    found = latest_checkpoint(str(run.work_dir))
    if Path(found).name == newest.name and not equal(training_state(found), whole):
        faults.append(f'{how}: taken for whole')
    newest.write_bytes(content)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=60, help='at least so many')
    parser.add_argument('--disks', type=int, default=10, help='full disks')
    parser.add_argument('--damaged', type=int, default=30, help='damaged checkpoints')
    parser.add_argument('--seed', type=int, default=0, help='of the random moments, sizes and damages')
    parser.set_defaults(device='cpu', precision='float32', compile=False)
    parser.add_argument('--out', type=Path, default=Path(__file__).parent / 'results', help='where results are kept')
    return parser.parse_args()


def make_config(name: str) -> Config:
    """The config of one of ``SCENARIOS``."""
    system, processes, settings = SCENARIOS[name]
    cfg = Config.fromfile(ROOT / f'configs/{system}/pvt_nano_digits.py')
    cfg.merge_from_dict(deepcopy(COMMON | settings))  # mmengine takes _delete_ out of what it is given
    cfg.train_dataloader.batch_size = 2 // processes
    dataset = cfg.train_dataloader.dataset
    if dataset.type == 'RepeatDataset':
        dataset.times, dataset = 1, dataset.dataset
    dataset.pipeline.insert(-1, dict(type='RandomFlip', prob=0.5))
    return cfg


class Scenario:
    """A kind of run, the run of it that is left alone, and what happens to others.

    Args:
        name: One of ``SCENARIOS``.
        root: The folder of all runs, with the embedded digits in ``digits``.
    """

    def __init__(self, name: str, root: Path) -> None:
        system, self.processes, _ = SCENARIOS[name]
        folder = 'ADEChallengeData2016' if system == 'semantic_fpn' else 'coco'
        self.data_root, self.root = root / 'digits' / folder, root / name.replace(', ', '_').replace(' ', '_')
        self.root.mkdir()
        self.config = self.root / 'config.py'
        cfg = make_config(name)
        cfg.dump(self.config)
        self.tally = Tally()
        self.alone = self.run('alone')
        code = self.alone.finish()
        if code:
            raise SettingError(f'{name} fails when it is left alone: {self.alone.log.read_text()[-2000:]}')
        self.left_alone = self.alone.end()

    def run(self, name: str) -> Run:
        return Run(self.config, self.processes, self.data_root, self.root / name)

    def kill(self, kills: int, faults: list[str]) -> None:
        """Kills another run so many times; what goes wrong is added to ``faults``."""
        run = self.run(f'killed_{self.tally.runs}')
        kill_and_resume(run, self.alone.seconds(), kills, self.left_alone, self.tally, faults)


def kill_runs(root: Path, kills: int, faults: list[str]) -> dict[str, Scenario]:
    """Kills runs of all scenarios in turn until there were so many kills; what goes wrong is added to ``faults``."""
    scenarios = {}
    for name in itertools.cycle(SCENARIOS):
        left = kills - sum(scenario.tally.kills for scenario in scenarios.values())
        if left <= 0:
            return scenarios
        if name not in scenarios:
            scenarios[name] = Scenario(name, root)
        scenarios[name].kill(min(left, KILLS_PER_RUN), faults)
        print(name, scenarios[name].tally, flush=True)


@one_line_errors
def main() -> None:
    args = parse_args()
    random.seed(args.seed)
    with TemporaryDirectory() as folder:
        root = Path(folder)
        write_digits(root / 'digits', num_train=16, num_val=8, size=96)
        faults = []
        scenarios = kill_runs(root, args.kills, faults)
        first = next(iter(scenarios.values()))
        whole = sum(path.stat().st_size for path in first.alone.work_dir.rglob('*')) // 1024
        for i in range(args.disks):
            run = first.run(f'disk_{i}/run')
            fill_disk(run, first.left_alone, whole, faults)
        for _ in range(args.damaged):
            damage_newest(first.alone, faults)
    rows = [[name, *map(str, asdict(scenario.tally).values())] for name, scenario in scenarios.items()]
    text = markdown(['run', *HEAD], rows) + DISKS.format(disks=args.disks, damaged=args.damaged)
    figures = {name: asdict(scenario.tally) for name, scenario in scenarios.items()}
    keep(args, 'faults', dict(scenarios=figures, disks=args.disks, damaged=args.damaged, faults=faults), text)
    if faults or not all(scenario.tally.holds() for scenario in scenarios.values()):
        raise SettingError('a run was not resumed exactly:\n' + '\n'.join(faults))


if __name__ == '__main__':
    main()
