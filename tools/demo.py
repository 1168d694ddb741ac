"""The main job on the embedded dataset: writes it, trains a RetinaNet with a small PVT, tests it, draws.

Leaves ``demo/predictions.png``, truth beside predictions on validation scenes, and ``demo/curves.png``.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

from pvt_mm.commands.launch import check_ops
from pvt_mm.data.digits import write_digits
from pvt_mm.errors import SettingError

CONFIG = 'configs/retinanet/pvt_nano_digits.py'
WORK_DIR = Path('work_dirs/retinanet/pvt_nano_digits')
OUT = Path('demo')


def run(tool: str, *args) -> float:
    """Runs a tool as a user would and returns the seconds it took; ends the demo where it fails."""
    command = [f'tools/{tool}', CONFIG, *map(str, args)]
    print(f'\n== python {" ".join(command)}', flush=True)
    start = time.time()
    done = subprocess.run([sys.executable, *command])
    if done.returncode:
        sys.exit(f'demo: {tool} failed, its output is above')
    return time.time() - start


def draw_curves(scalars: Path) -> None:
    """The loss of every logged iteration and the AP of every validation, from mmengine's scalars."""
    entries = [json.loads(line) for line in scalars.read_text().splitlines()]
    losses = [(entry['iter'], entry['loss']) for entry in entries if 'loss' in entry]
    aps = [(entry['step'], entry['coco/bbox_mAP']) for entry in entries if 'coco/bbox_mAP' in entry]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout='constrained')
    left.plot(*zip(*losses))
    left.set(xlabel='iteration', ylabel='training loss', ylim=(0, None))
    right.plot(*zip(*aps), marker='o')
    right.set(xlabel='epoch', ylabel='AP (0.50:0.95), validation', ylim=(0, 1))
    figure.savefig(OUT / 'curves.png', dpi=110)


def draw_predictions(pictures: list[Path]) -> None:
    """Pictures of mmdet's visualizer, each the truth on the left and the predictions on the right."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 4.8), layout='constrained')
    for axis, picture in zip(axes.flat, pictures):
        axis.imshow(plt.imread(picture))
        axis.set_title('truth | predictions', fontsize=9)
        axis.axis('off')
    figure.savefig(OUT / 'predictions.png', dpi=80)


def main() -> None:
    try:
        check_ops()
    except SettingError as error:
        print(f'The demo runs on the CPU: {error}')
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    OUT.mkdir(exist_ok=True)
    write_digits('data/digits')
    seconds = run('train.py')
    trained = max(WORK_DIR.glob('*/vis_data/scalars.json'))
    pictures = (OUT / 'scenes').resolve()
    checkpoint = WORK_DIR / Path((WORK_DIR / 'last_checkpoint').read_text()).name
    run('test.py', checkpoint, '--show-dir', pictures)
    metrics = json.loads(max(WORK_DIR.glob('*/*.json')).read_text())
    draw_curves(trained)
    draw_predictions(sorted(pictures.iterdir())[:4])
    print(
        f'\n== AP {metrics["coco/bbox_mAP"]:.3f} (AP50 {metrics["coco/bbox_mAP_50"]:.3f}) on the validation scenes '
        f'after {seconds / 60:.1f} minutes of training\n'
        f'   checkpoint   {checkpoint}\n'
        f'   predictions  {OUT / "predictions.png"}\n'
        f'   curves       {OUT / "curves.png"}'
    )
    if metrics['coco/bbox_mAP'] < 0.8:
        sys.exit('demo: an AP of 0.80 was expected')


if __name__ == '__main__':
    main()
