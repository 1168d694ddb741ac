"""faster-coco-eval gives the figures of pycocotools through mmdet's metric."""

import json
import sys

import numpy as np
import pytest
import torch
from mmdet.datasets.api_wrappers import COCOeval
from mmdet.evaluation import CocoMetric
from mmdet.evaluation.metrics import coco_metric
from pycocotools import mask

from pvt_mm.engine.coco_eval import use_coco_eval
from tests.engine.tiny import line_runner

CLASSES, SIZE, IMAGES = ('cat', 'dog', 'bird'), 200, 12


def boxes(rng: np.random.Generator, number: int) -> np.ndarray:
    """Boxes as x1, y1, x2, y2, of COCO's three sizes."""
    sides = rng.choice([10, 50, 120], (number, 2)) * rng.uniform(0.8, 1.2, (number, 2))
    corners = rng.uniform(0, SIZE - sides)
    return np.hstack([corners, corners + sides])


def masks_of(found: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE]
    return np.stack([(x >= x1) & (x < x2) & (y >= y1) & (y < y2) for x1, y1, x2, y2 in found])


@pytest.fixture
def scenes(tmp_path):
    """COCO's annotations with crowds, a class that lacks, and the samples of a detector with
    equal scores, and in one image more boxes than AP counts."""
    rng = np.random.default_rng(0)
    images, annotations, samples = [], [], []
    for i in range(IMAGES):
        images.append(dict(id=i, file_name=f'{i}.jpg', height=SIZE, width=SIZE))
        truth = boxes(rng, 8)
        classes = []
        for box in truth:
            x1, y1, x2, y2 = box.tolist()
            crowd = int(rng.random() < 0.2)
            shape = [[x1, y1, x2, y1, x2, y2, x1, y2]]
            if crowd:
                shape = mask.encode(np.asfortranarray(masks_of(box[None])[0].astype(np.uint8)))
                shape = dict(size=shape['size'], counts=shape['counts'].decode())
            classes.append(int(rng.integers(2)))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=i,
                    category_id=classes[-1],
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=crowd,
                    segmentation=shape,
                )
            )
        false = rng.integers(3, size=8).tolist() if i else [0] * 250
        found = np.concatenate([boxes(rng, len(false)), truth + rng.normal(0, 4, truth.shape)]).clip(0, SIZE)
        prediction = dict(
            bboxes=torch.from_numpy(found),
            labels=torch.tensor(false + classes),
            scores=torch.from_numpy(rng.choice([0.1, 0.5, 0.9], len(found))),
            masks=torch.from_numpy(masks_of(found)),
        )
        samples.append(dict(img_id=i, ori_shape=(SIZE, SIZE), pred_instances=prediction))
    path = tmp_path / 'annotations.json'
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES)]
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return str(path), samples


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize('proposal_nums', [(100, 300, 1000), (10, 100, 1000)])
def test_figures_are_those_of_pycocotools(scenes, monkeypatch, kind, proposal_nums):
    path, samples = scenes

    def figures() -> dict[str, float]:
        metric = CocoMetric(path, kind, classwise=True, proposal_nums=proposal_nums)
        metric.dataset_meta = dict(classes=CLASSES)
        metric.process({}, samples)
        return metric.evaluate(IMAGES)

    monkeypatch.setattr(coco_metric, 'COCOeval', COCOeval)  # and back, at the end
    expected = figures()
    assert use_coco_eval() is None and coco_metric.COCOeval is not COCOeval
    assert figures() == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    assert 0.05 < expected[f'coco/{kind}_mAP'] < 0.95


def choose(scenes, tmp_path, monkeypatch, **cfg) -> str:
    """What our runner logs as it builds an evaluator, without the time."""
    monkeypatch.setattr(coco_metric, 'COCOeval', coco_metric.COCOeval)  # and back, at the end
    runner = line_runner(tmp_path, 'coco_eval', cfg=cfg)
    runner.build_evaluator(dict(type='mmdet.CocoMetric', ann_file=scenes[0]))
    (log,) = tmp_path.rglob('*.log')
    (line,) = (line for line in log.read_text().splitlines() if "counts COCO's figures" in line)
    return line


def test_the_log_says_that_faster_coco_eval_counts(scenes, tmp_path, monkeypatch):
    assert choose(scenes, tmp_path, monkeypatch).endswith("INFO - faster-coco-eval counts COCO's figures")
    assert coco_metric.COCOeval is not COCOeval


def test_a_config_turns_it_off_also_after_a_run_with_it(scenes, tmp_path, monkeypatch):
    use_coco_eval()
    line = choose(scenes, tmp_path, monkeypatch, fast_coco_eval=False)
    assert line.endswith("INFO - pycocotools counts COCO's figures: the config says fast_coco_eval=False")
    assert coco_metric.COCOeval is COCOeval


def test_without_it_pycocotools_counts(scenes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'faster_coco_eval', None)
    line = choose(scenes, tmp_path, monkeypatch)
    assert line.endswith("faster-coco-eval is not installed, which is faster: pip install 'pvt_mm[fast_eval]'")
    assert coco_metric.COCOeval is COCOeval


@pytest.mark.parametrize(
    'content,reason',
    [
        ('', 'ImportError: cannot import name'),
        ('import of_another_package', "ModuleNotFoundError: No module named 'of_another_package'"),
        ('raise OSError("libgomp.so.1\\nis missing")', 'OSError: libgomp.so.1)'),
    ],
)
def test_a_broken_one_falls_back_to_pycocotools(scenes, tmp_path, monkeypatch, content, reason):
    for name in [name for name in sys.modules if name.partition('.')[0] == 'faster_coco_eval']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'faster_coco_eval.py').write_text(content)
    line = choose(scenes, tmp_path, monkeypatch)
    assert f"INFO - pycocotools counts COCO's figures: faster-coco-eval cannot be imported ({reason}" in line
    assert coco_metric.COCOeval is COCOeval


def test_of_other_metrics_nothing_is_logged(tmp_path):
    line_runner(tmp_path, 'other').build_evaluator(dict(type='mmdet.VOCMetric'))
    (log,) = tmp_path.rglob('*.log')
    assert "COCO's figures" not in log.read_text()
