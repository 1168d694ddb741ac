"""Pictures of what the training pipeline feeds in."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from pvt_mm.commands import browse_data, launch
from pvt_mm.errors import SettingError
from tests.common import ROOT


def config(name: str, root) -> Config:
    cfg = Config.fromfile(ROOT / f'configs/{name}/pvt_nano_digits.py')
    launch.set_data_root(cfg, str(root))
    return cfg


@pytest.mark.parametrize('augmentation', [None, dict(type='PhotoMetricDistortion'), dict(type='RandomFlip', prob=1.0)])
def test_the_objects_are_drawn_where_the_pipeline_puts_them(digits, tmp_path, augmentation):
    cfg = config('mask_rcnn', digits / 'coco')
    if augmentation:
        cfg.train_dataloader.dataset.pipeline.insert(-1, augmentation)
    assert browse_data.browse(cfg, tmp_path, number=3) == 3
    drawn = sorted(tmp_path.iterdir())
    assert [path.name for path in drawn] == [f'{i:06d}_{i + 1:012d}.jpg' for i in (0, 7, 15)]
    source = cv2.resize(cv2.imread(str(digits / 'coco/train2017/000000000001.jpg')), (128, 128)).astype(int)
    change = np.abs(cv2.imread(str(drawn[0])).astype(int) - source).mean()
    flipped = np.abs(cv2.imread(str(drawn[0])).astype(int) - source[:, ::-1]).mean()
    if augmentation is None:  # the boxes and masks alone
        assert 2 < change < flipped
    elif augmentation['type'] == 'RandomFlip':
        assert flipped < change


def test_label_maps_are_drawn_and_a_number_past_the_data_draws_all(digits, tmp_path):
    assert browse_data.browse(config('semantic_fpn', digits / 'ADEChallengeData2016'), tmp_path, number=99) == 16
    picture = cv2.imread(str(tmp_path / '000000_000000000001.jpg')).astype(int)
    photo = cv2.imread(str(digits / 'ADEChallengeData2016/images/training/000000000001.jpg'))
    assert picture.shape == photo.shape and np.abs(picture - photo).mean() > 10


def test_inputs_become_rgb_pictures():
    blue = torch.tensor([255, 0, 0])[:, None, None]  # in OpenCV's order
    assert browse_data.to_rgb(blue).tolist() == [[[0, 0, 255]]]
    assert browse_data.to_rgb(torch.tensor([[[-3.0, 300.0]]])).tolist() == [[[0] * 3, [255] * 3]]  # grey, distorted
    assert browse_data.to_rgb(torch.cat([blue, blue[:1]])).shape == (1, 1, 3)  # a fourth band


def test_what_cannot_be_drawn_is_said(digits, tmp_path):
    cfg = config('retinanet', digits / 'coco')
    with pytest.raises(SettingError, match='--number 0 must be at least 1'):
        browse_data.browse(cfg, tmp_path, number=0)
    cfg.pop('visualizer')
    with pytest.raises(SettingError, match='pvt_nano_digits.py has no visualizer'):
        browse_data.browse(cfg, tmp_path, number=1)
