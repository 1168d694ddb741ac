"""COCO's evaluation by pycocotools and by faster-coco-eval, through mmdet's metric:
``python -m benchmarks.evaluation data/coco/annotations/instances_val2017.json``.

The annotations of the file stand for as many images as val2017 has: they are repeated. Of the detections of each image
half are moved objects, half are anywhere. Writes benchmarks/results/evaluation_cpu_float32.json and .md.
"""

import argparse
import json
import random
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from mmdet.evaluation import CocoMetric

from paper.tables import markdown
from pvt_mm.commands.launch import one_line_errors
from pvt_mm.engine.coco_eval import use_coco_eval
from pvt_mm.errors import SettingError

from .common import keep, parse
from .measure import interleaved, peak_memory


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations', type=Path)
    parser.add_argument('--images', type=int, default=5000)
    parser.add_argument('--detections', type=int, default=100, help='of each image')
    return parse(parser)


def repeat(truth: dict, number: int) -> dict:
    """COCO's annotations for ``number`` images, those of ``truth`` again and again."""
    images = [dict(truth['images'][i % len(truth['images'])], id=i) for i in range(number)]
    objects = {}
    for item in truth['annotations']:
        objects.setdefault(item['image_id'], []).append(item)
    annotations = []
    for i in range(number):
        for item in objects.get(truth['images'][i % len(truth['images'])]['id'], []):
            annotations.append(dict(item, id=len(annotations) + 1, image_id=i))
    return dict(images=images, annotations=annotations, categories=truth['categories'])


def detect(truth: dict, number: int) -> list[tuple[dict, dict]]:
    """Each image's truth, empty, and predictions, in the form in which the metric keeps them."""
    rng = random.Random(0)
    labels = {category['id']: i for i, category in enumerate(truth['categories'])}
    objects = {image['id']: [] for image in truth['images']}
    for item in truth['annotations']:
        objects[item['image_id']].append(item)
    results = []
    for image in truth['images']:
        bboxes, classes = [], []
        for i in range(number):
            if i % 2 and objects[image['id']]:
                item = rng.choice(objects[image['id']])
                x, y, w, h = item['bbox']
                x, y = x + rng.gauss(0, 0.1) * w, y + rng.gauss(0, 0.1) * h
                w, h = w * rng.uniform(0.8, 1.25), h * rng.uniform(0.8, 1.25)
                classes.append(labels[item['category_id']])
            else:
                w, h = rng.uniform(5, image['width'] / 2), rng.uniform(5, image['height'] / 2)
                x, y = rng.uniform(0, image['width'] - w), rng.uniform(0, image['height'] - h)
                classes.append(rng.randrange(len(labels)))
            bboxes.append([x, y, x + w, y + h])
        found = dict(
            img_id=image['id'],
            bboxes=torch.tensor(bboxes).numpy(),
            labels=torch.tensor(classes).numpy(),
            scores=torch.rand(number, generator=torch.Generator().manual_seed(image['id'])).numpy(),
        )
        results.append((dict(img_id=image['id'], width=image['width'], height=image['height']), found))
    return results


@one_line_errors
def main() -> None:
    args = parse_args()
    truth = repeat(json.loads(args.annotations.read_text()), args.images)
    results = detect(truth, args.detections)
    with TemporaryDirectory() as folder:
        path = Path(folder, 'truth.json')
        path.write_text(json.dumps(truth))
        metric = CocoMetric(str(path), 'bbox')
        metric.dataset_meta = dict(classes=[category['name'] for category in truth['categories']])
        figures = {}

        def slow() -> None:
            use_coco_eval(fast=False)
            figures['pycocotools'] = metric.compute_metrics(results)

        def fast() -> None:
            if fault := use_coco_eval():
                raise SettingError(fault)
            figures['faster-coco-eval'] = metric.compute_metrics(results)

        steps = {'faster-coco-eval': fast, 'pycocotools': slow}
        memory = {name: peak_memory(step, args.device) for name, step in steps.items()}
        seconds = {
            name: [ms / 1000 for ms in found]
            for name, found in interleaved(steps, args.device, args.runs, args.seconds).items()
        }
    if figures['pycocotools'] != figures['faster-coco-eval']:
        raise SettingError(f'the figures differ: {figures}')
    ours = median(seconds['faster-coco-eval'])
    rows = [
        [
            name,
            f'{median(found):.1f} ({min(found):.1f} to {max(found):.1f})',
            f'{median(found) / ours:.1f}x' if name == 'pycocotools' else '',
            f'{memory[name]:.0f}',
        ]
        for name, found in seconds.items()
    ]
    head = ['', 's (fastest to slowest)', 'speed of faster-coco-eval', 'peak MiB']
    text = f'{args.images:,} images, {len(truth["annotations"]):,} objects, {args.detections} detections an image; '
    text += f'the same figures: bbox_mAP {figures["pycocotools"]["bbox_mAP"]}\n\n{markdown(head, rows)}'
    keep(args, 'evaluation', dict(seconds=seconds, mib=memory, figures=figures), text)


if __name__ == '__main__':
    main()
