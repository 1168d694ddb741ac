"""What a model gets wrong: the confusion matrix, and the images with the most mistakes."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub, print_log
from mmengine.registry import METRICS
from torch import Tensor

SCORE_THR = 0.3  # predictions below are left out
IOU_THR = 0.5  # from here on a box can match an object
NUM_WORST = 12  # images whose predictions are kept
MAP_SIDE = 256  # longer side of a label map that is kept, in pixels
NOTHING = 'nothing'  # the last class of a detector's matrix: no object, or no prediction


@METRICS.register_module('PVTMistakes')
class Mistakes(BaseMetric):
    """Counts which class is taken for which, and keeps the worst images.

    Detectors: boxes with a score of at least 0.3 are matched to objects at an IoU of at least 0.5, those of the right
    class first. Crowds count neither way. Segmenters: pixels, those with a class alone. Images without truth are
    left out.

    It returns no figures. What it finds is the message hub's ``mistakes`` (never saved in a checkpoint), a table in the
    log and a JSON file: ``task``, ``classes``, ``matrix`` (rows: truth; columns: predictions; a detector's last row and
    column: nothing there) and ``worst``, the images with the most mistakes first.

    Args:
        out_file: The JSON file to write.
    """

    def __init__(self, out_file: str | Path) -> None:
        super().__init__()
        self.out_file = Path(out_file)
        self._failed = False

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Adds what is needed of each image; the arguments are mmengine's."""
        for sample in data_samples:
            self.results.append(self._look_at(sample))
        pictured = [result for result in self.results if result and 'picture' in result]
        if len(pictured) > 4 * NUM_WORST:
            for result in sorted(pictured, key=_badness)[NUM_WORST:]:
                del result['picture']

    def _look_at(self, sample: dict) -> dict | None:
        try:
            if self._failed:
                return None
            if 'labels' in sample.get('gt_instances', ()) and 'bboxes' in sample.get('pred_instances', ()):
                return _look_at_boxes(sample, len(self.dataset_meta['classes']))
            if 'pred_sem_seg' in sample and 'gt_sem_seg' in sample:
                return _look_at_maps(sample, len(self.dataset_meta['classes']))
        except Exception as error:  # a model of another kind: its own metrics are what counts
            self._fail(error)
        return None

    def _fail(self, error: Exception) -> None:
        self._failed = True
        print_log(f'the confusion matrix is left out: {type(error).__name__}: {error}', 'current', logging.WARNING)

    def compute_metrics(self, results: list) -> dict:
        """Adds up, logs and writes what was found; returns {}."""
        MessageHub.get_current_instance().update_info('mistakes', None, resumed=False)
        results = [result for result in results if result]
        if not results or self._failed:
            return {}
        try:
            mistakes = self._sum_up(results)
            print_log(describe(mistakes), 'current')
            self.out_file.parent.mkdir(parents=True, exist_ok=True)
            worst = [{key: image[key] for key in image if key != 'maps'} for image in mistakes['worst']]
            self.out_file.write_text(json.dumps(dict(mistakes, worst=worst), default=lambda array: array.tolist()))
            MessageHub.get_current_instance().update_info('mistakes', mistakes, resumed=False)
        except Exception as error:
            self._fail(error)
        return {}

    def _sum_up(self, results: list[dict]) -> dict:
        classes, task = list(self.dataset_meta['classes']), results[0]['task']
        names = [*classes, NOTHING] if task == 'detection' else classes
        matrix = np.zeros((len(names), len(names)), np.int64)
        truth, predicted, number = np.concatenate([result['pairs'] for result in results]).T
        np.add.at(matrix, (truth, predicted), number)
        worst = sorted((result for result in results if result['errors'] and 'picture' in result), key=_badness)
        worst = [dict(result['picture'], errors=result['errors']) for result in worst[:NUM_WORST]]
        return dict(task=task, classes=names, palette=self.dataset_meta.get('palette'), matrix=matrix, worst=worst)


def _badness(result: dict) -> float:
    return -result['errors']


def _look_at_boxes(sample: dict, num_classes: int) -> dict:
    """The pairs (truth, predicted, 1) of an image of a detector, and its boxes; errors: how many are wrong."""
    truth, found = sample['gt_instances'], sample['pred_instances']
    chosen = found['scores'] >= SCORE_THR
    order = found['scores'][chosen].argsort(descending=True)
    boxes, labels, scores = (found[key][chosen][order].cpu() for key in ('bboxes', 'labels', 'scores'))
    true_boxes, true_labels = _tensor(truth['bboxes']), truth['labels'].cpu()
    owners = match(true_boxes, true_labels, boxes, labels)
    crowds = sample.get('ignored_instances', {})
    if len(crowds.get('bboxes', ())):
        from mmdet.structures.bbox import bbox_overlaps

        inside = bbox_overlaps(boxes, _tensor(crowds['bboxes']), mode='iof').amax(1) >= IOU_THR
        kept = (owners >= 0) | ~inside.numpy()
        boxes, labels, scores, owners = boxes[kept], labels[kept], scores[kept], owners[kept]
    true_labels, labels = true_labels.numpy(), labels.numpy()
    missed = np.setdiff1d(np.arange(len(true_labels)), owners)
    pairs = np.concatenate(
        [
            np.stack([np.append(true_labels, num_classes)[owners], labels], 1),  # owner -1: the last, nothing
            np.stack([true_labels[missed], np.full(len(missed), num_classes)], 1),
        ]
    )
    pairs = np.pad(pairs, ((0, 0), (0, 1)), constant_values=1)
    picture = dict(
        img_path=sample.get('img_path'),
        shape=sample['ori_shape'][:2],
        true_boxes=true_boxes.numpy(),
        true_labels=true_labels,
        boxes=boxes.numpy(),
        labels=labels,
        scores=scores.numpy(),
        owners=owners,
    )
    errors = int((pairs[:, 0] != pairs[:, 1]).sum())
    return dict(task='detection', pairs=pairs, errors=errors, picture=picture)


def match(true_boxes: Tensor, true_labels: Tensor, boxes: Tensor, labels: Tensor) -> np.ndarray:
    """Matches predictions to objects, greedily: those of the right class first, then those of another.

    Args:
        true_boxes: (T, 4) x1, y1, x2, y2 of the objects.
        true_labels: (T,) their classes.
        boxes: (P, 4) predictions by falling score.
        labels: (P,) their classes.

    Returns:
        (P,) the index of each prediction's object, -1 where it has none.
    """
    from mmdet.structures.bbox import bbox_overlaps

    owners = np.full(len(boxes), -1)
    if not len(true_boxes):
        return owners
    overlaps = bbox_overlaps(boxes, true_boxes).numpy()
    same_class = (labels[:, None] == true_labels).numpy()
    for allowed in (same_class, ~same_class):
        candidates = np.where(allowed, overlaps, 0)
        for i in np.flatnonzero(candidates.max(1) >= IOU_THR):
            best = candidates[i].argmax()
            if owners[i] < 0 and candidates[i, best] >= IOU_THR:
                owners[i] = best
                candidates[:, best] = overlaps[:, best] = 0  # it is taken
    return owners


def _tensor(boxes) -> Tensor:
    """mmdet's boxes, or a tensor, as a tensor on the CPU."""
    return getattr(boxes, 'tensor', boxes).cpu()


def _look_at_maps(sample: dict, num_classes: int) -> dict | None:
    """The pairs (truth, predicted, pixels) of an image of a segmenter, and its maps; errors: the part of its pixels."""
    found = sample['pred_sem_seg']['data'].squeeze(0)
    truth = sample['gt_sem_seg']['data'].squeeze(0).to(found)
    if found.shape != truth.shape:
        return None
    valid = (truth < num_classes) & (found < num_classes)
    index = torch.where(valid, truth * num_classes + found, num_classes**2).flatten()
    counts = torch.bincount(index, minlength=num_classes**2)[: num_classes**2].cpu().numpy()
    (index,) = counts.nonzero()
    pairs = np.stack([index // num_classes, index % num_classes, counts[index]], 1)
    if not len(pairs):
        return None
    step = -(-max(truth.shape) // MAP_SIDE)
    maps = [labels[::step, ::step].cpu().numpy().astype(np.int16) for labels in (truth, found)]
    picture = dict(img_path=sample.get('img_path'), shape=tuple(truth.shape), maps=maps)
    wrong = pairs[pairs[:, 0] != pairs[:, 1], 2].sum() / pairs[:, 2].sum()
    return dict(task='segmentation', pairs=pairs, errors=float(wrong), picture=picture)


def confusions(mistakes: dict, number: int = 10) -> list[tuple[str, str, int, float | None]]:
    """The most frequent mistakes.

    Returns:
        (truth, predicted, count, part of the truth from 0 to 1), most frequent first; without a part where there is
        no truth.
    """
    matrix, names = mistakes['matrix'], mistakes['classes']
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    found = []
    for index in np.argsort(-wrong, axis=None, kind='stable')[:number]:
        truth, predicted = np.unravel_index(index, wrong.shape)
        if count := int(wrong[truth, predicted]):
            is_object = mistakes['task'] == 'segmentation' or truth < len(matrix) - 1
            part = count / matrix[truth].sum() if is_object else None
            found.append((names[truth], names[predicted], count, part))
    return found


def describe(mistakes: dict) -> str:
    """The most frequent mistakes as a table for the log."""
    unit = 'objects' if mistakes['task'] == 'detection' else 'pixels'
    rows = [('truth', 'predicted', unit, 'of truth')]
    for truth, predicted, count, part in confusions(mistakes):
        rows.append((truth, predicted, str(count), '' if part is None else f'{part:.1%}'))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    if mistakes['task'] == 'detection':
        title = f'most frequent mistakes (score at least {SCORE_THR}, IoU at least {IOU_THR}):'
    else:
        title = 'most frequent mistakes:'
    return '\n'.join([title, *lines] if len(rows) > 1 else [title, 'none'])
