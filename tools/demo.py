"""The main job on the embedded dataset: writes it, trains a RetinaNet with a small PVT, tests it, draws.

Leaves ``demo/predictions.png``, truth beside predictions on validation scenes, and ``demo/curves.png``. The scenes are
not chosen by hand: they are the first four of the validation split with 4 to 8 digits.
"""

import itertools
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np

from pvt_mm.commands.launch import check_ops
from pvt_mm.data.digits import write_digits
from pvt_mm.errors import SettingError

CONFIG = 'configs/retinanet/pvt_nano_digits.py'
WORK_DIR = Path('work_dirs/retinanet/pvt_nano_digits')
DATA = Path('data/digits')
OUT = Path('demo')
# Predictions below this score are not drawn.
MIN_SCORE = 0.7


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


def draw_boxes(axis: plt.Axes, boxes: np.ndarray, digits: list[int], labels: list[str]) -> None:
    """Draws (N, 4) boxes (left, top, right, bottom), each with its label at a corner where it hides no other label."""
    taken = []
    for (left, top, right, bottom), digit, label in zip(boxes, digits, labels):
        colour = plt.get_cmap('tab10')(digit)
        axis.add_patch(plt.Rectangle((left, top), right - left, bottom - top, fill=False, color=colour, linewidth=2.5))
        background = dict(facecolor=colour, linewidth=0, pad=2)
        text = axis.text(0, 0, label, color='white', fontsize=13, weight='bold', bbox=background)
        # above the box, and inside at its top and at its bottom: below, it would seem to belong to the next one
        rows = dict(y=top, va='bottom'), dict(y=top, va='top'), dict(y=bottom, va='bottom')
        columns = dict(x=left, ha='left'), dict(x=right, ha='right')
        for row, column in itertools.product(rows, columns):
            text.set(**row, **column)
            place = text.get_window_extent().padded(3)
            if axis.bbox.padded(6).count_contains(place.corners()) == 4 and not place.count_overlaps(taken):
                break
        taken.append(place)


def draw_predictions(results: Path, data: Path) -> None:
    """Draws truth and predictions of the first four validation scenes with 4 to 8 digits.

    Args:
        results: The pickle that ``test.py --out`` wrote.
        data: The dataset in COCO's layout.
    """
    annotations = json.loads((data / 'annotations/instances_val2017.json').read_text())['annotations']
    scenes = []
    for result in pickle.loads(results.read_bytes()):
        truth = [a for a in annotations if a['image_id'] == result['img_id']]
        if 4 <= len(truth) <= 8:
            scenes.append((result, truth))
    figure, axes = plt.subplots(2, 4, figsize=(16, 8.4))
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.005, top=0.95, wspace=0.02, hspace=0.1)
    for (result, truth), (left, right) in zip(scenes, axes.reshape(4, 2)):
        for axis, title in ((left, 'truth'), (right, f'predictions (score at least {MIN_SCORE})')):
            axis.imshow(plt.imread(data / 'val2017' / Path(result['img_path']).name), interpolation='bicubic')
            axis.set_title(title, fontsize=15)
            axis.axis('off')
        boxes = np.array([a['bbox'] for a in truth])
        boxes[:, 2:] += boxes[:, :2]
        digits = [a['category_id'] - 1 for a in truth]
        draw_boxes(left, boxes, digits, list(map(str, digits)))
        found = result['pred_instances']
        shown = found['scores'] >= MIN_SCORE
        boxes, digits, scores = (found[key][shown].numpy() for key in ('bboxes', 'labels', 'scores'))
        draw_boxes(right, boxes, digits, [f'{digit}: {score:.2f}' for digit, score in zip(digits, scores)])
    figure.savefig(OUT / 'predictions.png', dpi=80)


def main() -> None:
    try:
        check_ops()
    except SettingError as error:
        print(f'The demo runs on the CPU: {error}')
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    OUT.mkdir(exist_ok=True)
    write_digits(DATA)
    seconds = run('train.py')
    trained = max(WORK_DIR.glob('*/vis_data/scalars.json'))
    checkpoint = WORK_DIR / Path((WORK_DIR / 'last_checkpoint').read_text()).name
    results = OUT / 'predictions.pkl'
    run('test.py', checkpoint, '--out', results)
    metrics = json.loads(max(WORK_DIR.glob('*/[0-9]*.json')).read_text())
    draw_curves(trained)
    draw_predictions(results, DATA / 'coco')
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
