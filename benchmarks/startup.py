"""Seconds from the command to the first iteration of a training on COCO's train2017, where they go, and the memory of
the data loader's workers, beside mmdet's own tools/train.py:
``python -m benchmarks.startup data/coco/annotations/instances_train2017.json``.

The annotations of the file stand for as many images as train2017 has: they are repeated. The images themselves are
links to one image. Both tools train RetinaNet with PVT-Small by the same config. Writes
benchmarks/results/startup_cpu_float32.json and .md.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import cv2
import mmdet
import numpy as np
import psutil
from mmdet.datasets import CocoDataset
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from paper.tables import markdown
from pvt_mm.commands.launch import one_line_errors
from pvt_mm.data.beside import AgreementHook
from pvt_mm.errors import SettingError

from .common import keep, parse
from .evaluation import repeat
from .measure import ROOT

TOOLS = {'pvt_mm': ROOT / 'tools/train.py', "mmdet's": Path(mmdet.__file__).parent / '.mim/tools/train.py'}
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['pvt_mm', 'benchmarks.startup'])
custom_hooks = [dict(type='StartupHook')]
model = dict(backbone=dict(init_cfg=None))
train_dataloader = dict(batch_size=1, num_workers={workers}, dataset=dict(data_root={data!r}))
val_dataloader = dict(num_workers=1, dataset=dict(
    data_root={data!r}, ann_file='annotations/instances_val2017.json', data_prefix=dict(img='val2017/')))
val_evaluator = dict(ann_file={val!r})
"""
PHASES = 'startup_phases'  # the environment variable that names the file of a run's figures


@HOOKS.register_module()
class StartupHook(Hook):
    """Ends a run at its second iteration, when each worker has loaded images, and writes down what it took."""

    phases: dict[str, float] = {}

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        if batch_idx == 0:
            self.seconds = time.time() - psutil.Process().create_time()
            return
        workers = [process.memory_full_info() for process in psutil.Process().children()]
        figures = dict(
            seconds=self.seconds,
            phases=self.phases,
            main_mib=psutil.Process().memory_full_info().pss / 2**20,
            worker_mib=[worker.uss / 2**20 for worker in workers],
        )
        Path(os.environ[PHASES]).write_text(json.dumps(figures))
        os._exit(0)


def timed(owner: object, name: str, phase: str) -> None:
    """Adds the time of each call of ``owner.name`` to the phase."""
    function = getattr(owner, name)

    @functools.wraps(function)
    def call(*args, **kwargs):
        start = time.time()
        try:
            return function(*args, **kwargs)
        finally:
            StartupHook.phases[phase] = StartupHook.phases.get(phase, 0) + time.time() - start

    setattr(owner, name, call)


if PHASES in os.environ:  # imported by the run's config
    StartupHook.phases['Python and imports'] = time.time() - psutil.Process().create_time()
    timed(Runner, 'build_model', 'building the model')
    timed(CocoDataset, 'full_init', 'reading the annotations')
    timed(AgreementHook, 'wait', 'waiting for the check of the annotations')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', type=Path)
    parser.add_argument('--images', type=int, default=118287)
    parser.add_argument('--workers', type=int, default=2)
    return parse(parser)


def write_dataset(source: Path, number: int, folder: Path) -> int:
    """Writes COCO's layout with ``number`` training images and 100 for validation; returns the number of objects."""
    truth = json.loads(source.read_text())
    (folder / 'annotations').mkdir()
    cv2.imwrite(str(folder / 'image.jpg'), np.zeros((480, 640, 3), np.uint8))
    for name, images in (('train2017', number), ('val2017', 100)):
        made = repeat(truth, images)
        (folder / name).mkdir()
        for image in made['images']:
            image.update(file_name=f'{image["id"]:012}.jpg', height=480, width=640)
            (folder / name / image['file_name']).symlink_to(folder / 'image.jpg')
        (folder / f'annotations/instances_{name}.json').write_text(json.dumps(made))
        if name == 'train2017':
            objects = len(made['annotations'])
    return objects


def run(tool: Path, config: Path, folder: Path) -> dict:
    """What the hook wrote down in a run of ``tool``."""
    figures = folder / 'figures.json'
    figures.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, str(tool), str(config), '--work-dir', str(folder / 'run')],
        env=os.environ | {PHASES: str(figures), 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if not figures.is_file():
        raise SettingError(f'{tool} ended before its second iteration:\n{done.stdout[-2000:]}{done.stderr[-9000:]}')
    return json.loads(figures.read_text())


@one_line_errors
def main() -> None:
    args = parse_args()
    found = {name: [] for name in TOOLS}
    with TemporaryDirectory() as name:
        folder = Path(name)
        objects = write_dataset(args.annotations, args.images, folder)
        config = folder / 'config.py'
        base = str(ROOT / 'configs/retinanet/pvt_small_1x.py')
        val = str(folder / 'annotations/instances_val2017.json')
        config.write_text(CONFIG.format(base=base, data=f'{folder}/', val=val, workers=args.workers))
        for _ in range(args.runs):
            for tool, path in TOOLS.items():
                found[tool].append(run(path, config, folder))
                print(tool, json.dumps(found[tool][-1]), flush=True)
    medians = {name: median(run['seconds'] for run in runs) for name, runs in found.items()}
    rows = []
    for name, runs in found.items():
        middle = min(runs, key=lambda run: abs(run['seconds'] - medians[name]))
        rows.append(
            [
                name,
                f'{medians[name]:.1f} ({min(r["seconds"] for r in runs):.1f} to {max(r["seconds"] for r in runs):.1f})',
                f'{medians[name] / medians["pvt_mm"]:.2f}x' if name != 'pvt_mm' else '',
                ', '.join(f'{phase} {seconds:.1f}' for phase, seconds in middle['phases'].items()),
                f'{middle["main_mib"]:.0f}',
                ', '.join(f'{mib:.0f}' for mib in middle['worker_mib']),
            ]
        )
    head = ['tools/train.py', 's to the first iteration', 'speed of ours', 'of these, s', 'main process, MiB']
    head.append("each worker's own, MiB")
    text = f'{args.images:,} images, {objects:,} objects\n\n{markdown(head, rows)}'
    keep(args, 'startup', dict(runs=found), text)


if __name__ == '__main__':
    main()
