import json
import shutil

import cv2
import numpy as np
import pytest

from pvt_mm.data.check import check_ade20k, check_coco
from pvt_mm.errors import DataError


@pytest.fixture
def coco(real_coco, tmp_path):
    """The first 8 real images of each split with their annotations; all categories."""
    root = tmp_path / 'coco'
    (root / 'annotations').mkdir(parents=True)
    for split in ('train2017', 'val2017'):
        data = json.loads((real_coco / 'annotations' / f'instances_{split}.json').read_text())
        data['images'] = data['images'][:8]
        kept = {image['id'] for image in data['images']}
        data['annotations'] = [a for a in data['annotations'] if a['image_id'] in kept]
        (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(data))
        (root / split).mkdir()
        for image in data['images']:
            shutil.copy(real_coco / split / image['file_name'], root / split)
    return root


@pytest.fixture
def ade(digits, tmp_path):
    shutil.copytree(digits / 'ADEChallengeData2016', tmp_path / 'ade')
    return tmp_path / 'ade'


def annotations(coco, split='val2017'):
    path = coco / 'annotations' / f'instances_{split}.json'
    return path, json.loads(path.read_text())


def test_whole_datasets_pass_and_are_counted(coco, ade):
    said = []
    check_coco(coco, log=said.append)
    check_ade20k(ade, log=said.append)
    assert said[0].startswith('train2017: 8 images annotated (a part of the published 118287), 8 files in')
    assert said[3] == 'validation: 8 images (a part of the published 2000), 8 maps'


def test_real_ade20k_passes(real_ade):
    check_ade20k(real_ade)


def test_a_missing_split_is_named_with_its_source(tmp_path):
    for check, source in ((check_coco, 'cocodataset.org'), (check_ade20k, 'ADEChallengeData2016.zip')):
        with pytest.raises(DataError, match=source) as error:
            check(tmp_path)
        assert len(str(error.value).splitlines()) == 2  # both splits


def test_a_missing_image_is_named(coco):
    path, data = annotations(coco)
    (coco / 'val2017' / data['images'][7]['file_name']).unlink()
    with pytest.raises(
        DataError, match=f'lacks 1 of the 8 images of instances_val2017.json: {data["images"][7]["file_name"]}'
    ):
        check_coco(coco)


def test_a_damaged_image_is_named(coco):
    path, data = annotations(coco)
    (coco / 'val2017' / data['images'][0]['file_name']).write_bytes(b'not a picture')
    with pytest.raises(DataError, match=f'{data["images"][0]["file_name"]} does not decode'):
        check_coco(coco)


def spoil(data, how):
    if how == 'category':
        data['categories'] = [c for c in data['categories'] if c['name'] != 'zebra']
        data['annotations'] = [
            a for a in data['annotations'] if a['category_id'] in {c['id'] for c in data['categories']}
        ]
    elif how == 'image':
        data['annotations'][3]['image_id'] = 1
    elif how == 'mask':
        data['annotations'][3]['segmentation'] = []
    elif how == 'size':
        data['images'][0]['height'] += 1
    elif how == 'key':
        del data['annotations']
    elif how == 'name':
        del data['images'][2]['file_name']


@pytest.mark.parametrize(
    'how, message',
    [
        ('category', 'lacks the categories zebra'),
        ('image', 'name an image or a category that it does not hold'),
        ('mask', 'have no segmentation'),
        ('size', 'px, instances_val2017.json says'),
        ('key', 'cannot be read .KeyError'),
        ('name', 'cannot be read .KeyError'),
    ],
)
def test_annotations_that_do_not_fit_are_named(coco, how, message):
    path, data = annotations(coco)
    spoil(data, how)
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=message):
        check_coco(coco)


def test_truncated_annotations_are_named(coco):
    path, _ = annotations(coco)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match='instances_val2017.json cannot be read .JSONDecodeError'):
        check_coco(coco)


def test_a_missing_map_is_named(ade):
    (ade / 'annotations' / 'training' / '000000000003.png').unlink()
    with pytest.raises(DataError, match='lacks the maps of 1 images: 000000000003'):
        check_ade20k(ade)


def test_an_unpacking_that_was_broken_off_is_seen(ade):
    (ade / 'images' / 'validation' / '000000000002.jpg').unlink()
    with pytest.raises(DataError, match='lacks the images of 1 maps: 000000000002'):
        check_ade20k(ade)


@pytest.mark.parametrize(
    'content, message',
    [
        (np.full((96, 96), 151, np.uint8), 'holds the class 151'),
        (np.zeros((96, 90), np.uint8), 'not its map'),
        (np.zeros((96, 96, 3), np.uint8), 'not its map'),
    ],
)
def test_a_map_that_is_none_is_named(ade, content, message):
    cv2.imwrite(str(ade / 'annotations' / 'validation' / '000000000001.png'), content)
    with pytest.raises(DataError, match=message):
        check_ade20k(ade)


def test_the_tool_exits_by_what_it_found(tool, digits, tmp_path):
    ade = digits / 'ADEChallengeData2016'
    assert tool('prepare_data.py', 'ade20k', '--data-root', ade).stdout.endswith('complete and readable\n')
    done = tool('prepare_data.py', 'coco', '--data-root', tmp_path, check=False)
    assert done.returncode == 1 and 'Traceback' not in done.stderr and 'cocodataset.org' in done.stderr
