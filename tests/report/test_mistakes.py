"""The confusion matrix and the worst images, on boxes and maps made by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub

from pvt_mm.report import Mistakes
from pvt_mm.report.mistakes import NUM_WORST, confusions, describe, match

CLASSES = ('cat', 'dog')
BOX, OTHER, THIRD = [0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]


@pytest.fixture
def metric(tmp_path):
    metric = Mistakes(tmp_path / 'run/mistakes.json')
    metric.dataset_meta = dict(classes=CLASSES)
    return metric


def boxes(truth: list, found: list, crowds: list = (), **more) -> dict:
    """A detector's sample of (box, label) and (box, label, score)."""

    def tensor(values, *shape):
        return torch.tensor(values, dtype=torch.float).reshape(-1, *shape)

    return dict(
        gt_instances=dict(
            bboxes=SimpleNamespace(tensor=tensor([box for box, _ in truth], 4)),  # as mmdet's boxes are
            labels=torch.tensor([label for _, label in truth], dtype=torch.long),
        ),
        pred_instances=dict(
            bboxes=tensor([box for box, _, _ in found], 4),
            labels=torch.tensor([label for _, label, _ in found], dtype=torch.long),
            scores=tensor([score for *_, score in found]),
        ),
        ignored_instances=dict(bboxes=tensor(list(crowds), 4)),
        ori_shape=(60, 60),
        **more,
    )


def maps(truth: list, found: list) -> dict:
    """A segmenter's sample of two rows of labels."""
    return dict(
        gt_sem_seg=dict(data=torch.tensor([[truth]], dtype=torch.uint8)),
        pred_sem_seg=dict(data=torch.tensor([[found]])),
    )


def evaluate(metric, *samples) -> dict | None:
    metric.process(None, samples)
    assert metric.evaluate(len(samples)) == {}
    return MessageHub.get_current_instance().get_info('mistakes')


def test_each_object_and_each_prediction_counts_once(metric):
    truth = [(BOX, 0), (OTHER, 0), (THIRD, 1)]
    found = [(BOX, 0, 0.9), (BOX, 0, 0.5), (OTHER, 1, 0.8), (THIRD, 1, 0.29)]
    # found; found twice; taken for a dog; a dog below the score
    assert evaluate(metric, boxes(truth, found))['matrix'].tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_an_object_belongs_to_the_prediction_of_its_class_though_another_scores_higher():
    truth, found = (torch.tensor(values, dtype=torch.float) for values in ([BOX], [BOX, BOX]))
    assert match(truth, torch.tensor([0]), found, torch.tensor([1, 0])).tolist() == [-1, 0]


def test_a_box_must_overlap_by_half():
    truth = torch.tensor([BOX], dtype=torch.float)
    found = torch.tensor([[0, 0, 10, 4.9], [0, 0, 10, 5.1]])
    assert match(truth, torch.tensor([0]), found, torch.tensor([0, 0])).tolist() == [-1, 0]


def test_a_prediction_inside_a_crowd_counts_neither_way(metric):
    found = [(OTHER, 0, 0.9), (BOX, 1, 0.8)]
    mistakes = evaluate(metric, boxes([], found, crowds=[[15, 15, 60, 60]]))
    assert mistakes['matrix'].tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert mistakes['worst'][0]['boxes'].tolist() == [BOX]


def test_pixels_without_a_class_count_neither_way(metric):
    mistakes = evaluate(metric, maps([0, 0, 1, 255], [0, 1, 1, 0]), maps([1, 1, 1, 1], [1, 1, 0, 1]))
    assert mistakes['matrix'].tolist() == [[1, 1], [1, 4]]
    assert [image['errors'] for image in mistakes['worst']] == [pytest.approx(1 / 3), 0.25]


def test_the_worst_images_come_first_and_no_more_are_kept(metric):
    def image(errors: int) -> dict:
        return boxes([(BOX, 0)], [(OTHER, 0, 0.9)] * errors + [(BOX, 0, 0.9)], img_path=str(errors))

    order = np.random.default_rng(0).permutation(200).tolist()
    for errors in order:
        metric.process(None, [image(errors)])
    assert sum('picture' in result for result in metric.results) <= 4 * NUM_WORST
    metric.evaluate(200)
    worst = MessageHub.get_current_instance().get_info('mistakes')['worst']
    assert [int(item['img_path']) for item in worst] == list(range(199, 199 - NUM_WORST, -1))


def test_what_was_found_is_written_and_not_saved_in_checkpoints(metric):
    mistakes = evaluate(metric, boxes([(BOX, 0)], [(BOX, 1, 0.9)], img_path='a.jpg'))
    written = json.loads(metric.out_file.read_text())
    assert written['classes'] == ['cat', 'dog', 'nothing'] and written['matrix'] == mistakes['matrix'].tolist()
    assert written['worst'][0]['img_path'] == 'a.jpg'
    assert 'mistakes' not in MessageHub.get_current_instance().state_dict()['runtime_info']


def test_the_log_names_the_most_frequent_mistakes(metric):
    cats = boxes([(BOX, 0), (OTHER, 0)], [(BOX, 1, 0.9)])
    mistakes = evaluate(metric, cats, boxes([(BOX, 0)], [(BOX, 1, 0.9), (OTHER, 1, 0.9)]))
    assert confusions(mistakes) == [('cat', 'dog', 2, 2 / 3), ('cat', 'nothing', 1, 1 / 3), ('nothing', 'dog', 1, None)]
    assert describe(mistakes).splitlines()[2:] == [
        'cat      dog        2        66.7%',
        'cat      nothing    1        33.3%',
        'nothing  dog        1',
    ]


@pytest.mark.parametrize(
    'sample',
    [
        dict(pred_instances=boxes([], [])['pred_instances'], gt_instances={}),
        dict(pred_panoptic_seg={}),
        maps([255], [0]),
        dict(maps([0, 0], [0, 0]), pred_sem_seg=dict(data=torch.zeros(1, 3, 3))),
    ],
    ids=['no truth', 'another task', 'no pixel with a class', 'another size'],
)
def test_without_truth_it_says_nothing(metric, sample):
    assert evaluate(metric, sample) is None and not metric.out_file.exists()


def test_a_sample_it_cannot_read_is_said_once_and_the_evaluation_goes_on(metric, monkeypatch):
    said = []
    monkeypatch.setattr('pvt_mm.report.mistakes.print_log', lambda text, *_: said.append(text))
    broken = boxes([(BOX, 7)], [])
    del broken['ori_shape']
    assert evaluate(metric, broken, broken) is None
    assert said == ["the confusion matrix is left out: KeyError: 'ori_shape'"]
