import hashlib
import json

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmengine.registry import DefaultScope
from mmseg.datasets import BaseSegDataset

from pvt_mm.data.digits import _SPLITS, DIGITS, write_digits


def contents(root) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha1(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def test_the_same_settings_write_the_same_files_once(tmp_path, digits):
    assert write_digits(tmp_path / 'again', num_train=16, num_val=8, size=96)
    assert contents(tmp_path / 'again') == contents(digits)
    assert not write_digits(tmp_path / 'again', num_train=16, num_val=8, size=96)
    assert write_digits(tmp_path / 'again', num_train=16, num_val=8, size=96, seed=1)
    assert contents(tmp_path / 'again') != contents(digits)


def test_an_interrupted_writing_is_done_anew(tmp_path):
    (tmp_path / 'digits.partial' / 'coco' / 'train2017').mkdir(parents=True)
    (tmp_path / 'digits.partial' / 'coco' / 'train2017' / '1.jpg').write_text('half')
    assert write_digits(tmp_path / 'digits', num_train=2, num_val=1, size=64)
    assert not (tmp_path / 'digits.partial').exists()
    assert len(list((tmp_path / 'digits' / 'coco' / 'train2017').iterdir())) == 2


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / 'photo.jpg').write_text('dear')
    with pytest.raises(FileExistsError, match='holds something that is not this dataset'):
        write_digits(tmp_path)
    assert (tmp_path / 'photo.jpg').read_text() == 'dear'


@pytest.mark.parametrize('settings', [dict(size=63), dict(num_train=0), dict(num_val=0)])
def test_impossible_settings_are_named(tmp_path, settings):
    with pytest.raises(ValueError, match=f'{next(iter(settings))}={next(iter(settings.values()))}'):
        write_digits(tmp_path / 'digits', **settings)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmdet_reads_boxes_and_masks_that_agree(digits, split):
    name = _SPLITS[split][0]
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = CocoDataset(
            data_root=str(digits / 'coco'),
            ann_file=f'annotations/instances_{name}.json',
            data_prefix=dict(img=f'{name}/'),
            metainfo=dict(classes=DIGITS),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)],
        )
        scenes = [dataset[i] for i in range(len(dataset))]
    assert len(scenes) == len(list((digits / 'coco' / name).iterdir()))
    count = 0
    for scene in scenes:
        assert scene['img'].shape == (96, 96, 3)
        assert not scene['gt_ignore_flags'].any()
        boxes = scene['gt_bboxes'].tensor.numpy()
        for box, mask in zip(boxes, scene['gt_masks'].masks, strict=True):
            y, x = mask.nonzero()
            np.testing.assert_array_equal(box, [x.min(), y.min(), x.max() + 1, y.max() + 1])
            count += 1
    assert count > 2 * len(scenes)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_mmseg_reads_maps_that_agree_with_the_masks(digits, split):
    ade = digits / 'ADEChallengeData2016'
    coco_name, name = _SPLITS[split]
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = BaseSegDataset(
            data_root=str(ade),
            data_prefix=dict(img_path=f'images/{name}', seg_map_path=f'annotations/{name}'),
            img_suffix='.jpg',
            seg_map_suffix='.png',
            reduce_zero_label=True,
            metainfo=dict(classes=('background', *DIGITS)),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True)],
        )
        maps = [dataset[i]['gt_seg_map'] for i in range(len(dataset))]
    values = set(np.unique(maps))
    assert values <= {*range(11), 255} and {0, 255} < values
    annotations = json.loads((digits / 'coco' / 'annotations' / f'instances_{coco_name}.json').read_text())
    for image, seg_map in zip(annotations['images'], maps, strict=True):
        own = [a for a in annotations['annotations'] if a['image_id'] == image['id']]
        assert sum(a['area'] for a in own) == ((seg_map > 0) & (seg_map < 255)).sum()
        assert {a['category_id'] for a in own} == {*seg_map[(seg_map > 0) & (seg_map < 255)]}


def test_training_and_validation_use_different_scans(monkeypatch, tmp_path):
    used = []

    def record(rng, scans, labels, size):
        used.append(scans)
        return np.zeros((size, size, 3), np.uint8), np.ones((size, size), np.uint8), []

    monkeypatch.setattr('pvt_mm.data.digits._scene', record)
    write_digits(tmp_path / 'digits', num_train=1, num_val=1, size=64)
    train, val = used
    assert len(train) + len(val) == 1797
    assert not {scan.tobytes() for scan in train} & {scan.tobytes() for scan in val}


def test_the_two_layouts_hold_the_same_images(digits):
    for coco_name, ade_name in _SPLITS.values():
        for path in (digits / 'coco' / coco_name).iterdir():
            other = digits / 'ADEChallengeData2016' / 'images' / ade_name / path.name
            assert path.read_bytes() == other.read_bytes()
            assert cv2.imread(str(path)).shape == (96, 96, 3)
