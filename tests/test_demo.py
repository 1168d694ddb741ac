import json
import pickle

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from pvt_mm.data.digits import write_digits
from tests.common import ROOT


@pytest.fixture
def demo(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / 'tools')
    import demo

    monkeypatch.setattr(demo, 'OUT', tmp_path)
    yield demo
    plt.close('all')


@pytest.fixture
def coco(tmp_path):
    write_digits(tmp_path / 'digits', num_train=1, num_val=30)
    return tmp_path / 'digits/coco'


def test_no_label_hides_another(demo):
    axis = plt.figure(figsize=(4, 4)).add_axes((0, 0, 1, 1))
    axis.imshow(np.zeros((128, 128)))
    boxes = np.array([(40, 0, 90, 60), (42, 2, 92, 60), (41, 60, 90, 128), (0, 60, 40, 128)])  # two are nearly one
    demo.draw_boxes(axis, boxes, range(4), [f'{digit}: 0.99' for digit in range(4)])
    places = [text.get_window_extent() for text in axis.texts]
    assert [text.get_text() for text in axis.texts] == ['0: 0.99', '1: 0.99', '2: 0.99', '3: 0.99']
    assert all(place.count_overlaps(places) == 1 for place in places)  # each with itself
    assert all(axis.bbox.padded(6).count_contains(place.corners()) == 4 for place in places)


def test_truth_is_drawn_beside_the_predictions_of_the_first_scenes_with_4_to_8_digits(
    demo, coco, monkeypatch, tmp_path
):
    data = json.loads((coco / 'annotations/instances_val2017.json').read_text())
    results, expected = [], []
    for image in data['images']:
        truth = [a for a in data['annotations'] if a['image_id'] == image['id']]
        boxes = torch.tensor([a['bbox'] for a in truth])
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([a['category_id'] - 1 for a in truth])
        scores = torch.full((len(truth),), 0.7)
        scores[-1] = 0.69  # not drawn
        found = dict(bboxes=boxes, labels=labels, scores=scores)
        results.append(dict(img_id=image['id'], img_path=image['file_name'], pred_instances=found))
        if 4 <= len(truth) <= 8:
            expected.append((boxes, labels))
    assert 4 < len(expected) < len(results)
    (tmp_path / 'results.pkl').write_bytes(pickle.dumps(results))
    drawn = []
    monkeypatch.setattr(demo, 'draw_boxes', lambda axis, *args: drawn.append(args))
    demo.draw_predictions(tmp_path / 'results.pkl', coco)
    assert len(drawn) == 8
    for (boxes, labels), truth, predicted in zip(expected, drawn[::2], drawn[1::2]):
        np.testing.assert_allclose(truth[0], boxes)
        assert truth[1] == labels.tolist() and truth[2] == list(map(str, labels.tolist()))
        np.testing.assert_allclose(predicted[0], boxes[:-1])
        assert predicted[2] == [f'{label}: 0.70' for label in labels[:-1]]
    assert cv2.imread(str(tmp_path / 'predictions.png')).std() > 10


def test_the_curves_are_those_of_the_log(demo, monkeypatch, tmp_path):
    entries = [dict(iter=1, loss=3.0), dict(iter=2, loss=1.0), {'step': 1, 'coco/bbox_mAP': 0.5}]
    (tmp_path / 'scalars.json').write_text('\n'.join(map(json.dumps, entries)))
    demo.draw_curves(tmp_path / 'scalars.json')
    left, right = plt.gcf().axes
    np.testing.assert_array_equal(left.lines[0].get_xydata(), [(1, 3), (2, 1)])
    np.testing.assert_array_equal(right.lines[0].get_xydata(), [(1, 0.5)])
    assert cv2.imread(str(tmp_path / 'curves.png')).std() > 10
