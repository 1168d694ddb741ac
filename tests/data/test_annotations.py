"""What is said of each fault of a file in COCO's form, and that mmdet does with it what is said."""

import io
import json
import math
import subprocess
import sys
from contextlib import redirect_stdout

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope
from pycocotools import mask as coco_mask

from pvt_mm.data import coco_file
from pvt_mm.data.annotations import Use, check_annotations, write_cleaned
from pvt_mm.data.coco_file import read_lists

HEIGHT, WIDTH, NUMBER = 48, 64, 12
NAMES = ('ship', 'boat')


def make() -> dict:
    """Two images, and 12 objects on them in turn. That of id i lies at (i, i)."""
    objects = [
        dict(
            id=i,
            image_id=1 + i % 2,
            category_id=5 + i % 2,
            bbox=[i, i, 10, 12],
            area=120,
            iscrowd=0,
            segmentation=[[i, i, i + 10, i, i + 10, i + 12, i, i + 12]],
        )
        for i in range(1, NUMBER + 1)
    ]
    images = [dict(id=i, file_name=f'{i}.jpg', height=HEIGHT, width=WIDTH) for i in (1, 2)]
    return dict(
        images=images, annotations=objects, categories=[dict(id=5 + i, name=name) for i, name in enumerate(NAMES)]
    )


def write(folder, data):
    for name in ('1.jpg', '2.jpg'):
        cv2.imwrite(str(folder / name), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    path = folder / 'a.json'
    path.write_text(json.dumps(data))
    return path


def train(path, poly2mask=True, **settings) -> list[tuple]:
    """What mmdet's pipeline gives to training: box (x1, y1, x2, y2), whether it is ignored and pixels of its mask."""
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=poly2mask),
        dict(type='Resize', scale=(WIDTH, HEIGHT), keep_ratio=True),
    ]
    with redirect_stdout(io.StringIO()):
        with DefaultScope.overwrite_default_scope('mmdet'):
            dataset = DATASETS.build(
                dict(
                    type=CocoDataset,
                    ann_file=str(path),
                    data_prefix=dict(img=f'{path.parent}/'),
                    metainfo=dict(classes=NAMES),
                    pipeline=pipeline,
                    **settings,
                )
            )
            items = [dataset[i] for i in range(len(dataset))]
    return [
        (box.tolist(), bool(ignored), int(area))
        for item in items
        for box, ignored, area in zip(item['gt_bboxes'].tensor, item['gt_ignore_flags'], item['gt_masks'].areas)
    ]


def learns(box=None, area=None, ignored=False, number=NUMBER):
    """Training sees ``number`` objects, the others' as they are, and of the faulty one what is given."""

    def check(objects):
        assert len(objects) == number
        whole = train_whole()
        changed = [item for item in objects if item not in whole]
        assert all(item[1] == ignored for item in changed)
        if number == NUMBER and (box or area is not None or ignored):
            assert len(changed) == 1
        if box:
            assert changed[0][0] == box
        if area is not None:
            assert changed[0][2] == area

    return check


def train_whole():
    return [
        ([float(v) for v in (i, i, i + 10, i + 12)], False, 120)
        for j in (0, 1)
        for i in range(1, NUMBER + 1)
        if i % 2 == j
    ]


DROPPED = learns(number=NUMBER - 1)


def change(**values):
    """Changes the object of id 1; ``...`` takes a key away."""

    def apply(data):
        data['annotations'][0].update(values)
        data['annotations'][0] = {key: value for key, value in data['annotations'][0].items() if value is not ...}

    return apply


def change_image(**values):
    def apply(data):
        data['images'][0].update(values)
        data['images'][0] = {key: value for key, value in data['images'][0].items() if value is not ...}

    return apply


def rle(height=HEIGHT, width=WIDTH, listed=False, cut=0):
    mask = np.zeros((height, width), np.uint8, order='F')
    mask[3:15, 1:11] = 1
    if listed:
        edges = np.flatnonzero(np.diff(mask.ravel('F'), prepend=0, append=0))
        counts = np.diff(np.r_[0, edges, mask.size]).tolist()
        return dict(size=[height, width], counts=counts[: len(counts) - cut])
    counts = coco_mask.encode(mask)['counts'].decode()
    return dict(size=[height, width], counts=counts[: len(counts) - cut])


TWICE = dict(
    id=1, image_id=1, category_id=5, bbox=[1, 1, 10, 12], area=120, iscrowd=0, segmentation=[[1, 1, 9, 1, 9, 9]]
)

# name: change, kind, whether it ends a run, what mmdet does
INPUTS = {
    'good': (lambda data: None, None, False, learns()),
    'zero': (change(bbox=[1, 1, 0, 12]), 'box-zero', False, DROPPED),
    'under 1 px': (change(bbox=[1, 1, 0.9, 12]), 'box-small', False, DROPPED),
    'negative': (change(bbox=[11, 1, -10, 12]), 'box-negative', True, DROPPED),
    'nan': (change(bbox=[1, math.nan, 10, 12]), 'box-nan', True, DROPPED),
    'nan width': (change(bbox=[1, 1, math.nan, 12]), 'box-nan', True, DROPPED),
    'infinite': (change(bbox=[1, 1, math.inf, 12]), 'box-infinite', True, learns([1, 1, WIDTH, 13])),
    'infinite start': (change(bbox=[-math.inf, 1, 10, 12]), 'box-infinite', True, DROPPED),
    'outside': (change(bbox=[70, 1, 10, 12]), 'box-outside', False, DROPPED),
    'reaching out': (change(bbox=[60, 1, 10, 12]), 'box-reaches-out', False, learns([60, 1, WIDTH, 13])),
    'a hair out': (change(bbox=[54.5, 1, 10, 12]), None, False, learns([54.5, 1, WIDTH, 13])),
    'text': (change(bbox=[1, '1', 10, 12]), 'box-broken', True, TypeError),
    'null': (change(bbox=[1, None, 10, 12]), 'box-broken', True, TypeError),
    'no list': (change(bbox=3), 'box-broken', True, TypeError),
    'three': (change(bbox=[1, 1, 10]), 'box-broken', True, ValueError),
    'five': (change(bbox=[1, 1, 10, 12, 3]), 'box-broken', True, ValueError),
    'no bbox': (change(bbox=...), 'no-bbox', True, KeyError),
    'no area': (change(area=...), 'no-area', True, KeyError),
    'no category_id': (change(category_id=...), 'no-category_id', True, KeyError),
    'no image_id': (change(image_id=...), 'no-image_id', True, KeyError),
    'no id': (change(id=...), 'no-id', True, KeyError),
    'no iscrowd': (change(iscrowd=...), 'no-iscrowd', False, learns()),
    'text as area': (change(area='120'), 'area-broken', True, TypeError),
    'area 0': (change(area=0), 'area-zero', False, DROPPED),
    'list as id': (change(id=[1]), 'id-broken', True, TypeError),
    'list as image_id': (change(image_id=[1]), 'id-broken', True, TypeError),
    'id twice': (lambda data: data['annotations'].append(TWICE), 'id-twice', True, AssertionError),
    'unknown image': (change(image_id=9), 'stray-image', False, DROPPED),
    'unknown category': (change(category_id=9), 'stray-category', True, DROPPED),
    'ignore': (change(ignore=1, bbox=...), 'ignored', False, DROPPED),
    'crowd': (change(iscrowd=1), 'crowd', False, learns(ignored=True)),
    'object is a list': (lambda data: data['annotations'].append([1]), 'entry-broken', True, TypeError),
    'image is a list': (lambda data: data['images'].append([1]), 'entry-broken', True, TypeError),
    'image without id': (change_image(id=...), 'entry-incomplete', True, KeyError),
    'image without height': (change_image(height=...), 'entry-incomplete', True, KeyError),
    'image without file_name': (change_image(file_name=...), 'entry-incomplete', True, KeyError),
    'text as height': (change_image(height='48'), 'entry-incomplete', True, TypeError),
    'null as width': (change_image(width=None), 'entry-incomplete', True, TypeError),
    'height 0': (change_image(height=0), 'entry-size', True, learns(number=NUMBER // 2)),
    'image id twice': (change_image(id=2), 'image-id-twice', True, learns(number=NUMBER // 2)),
    'file name twice': (change_image(file_name='2.jpg'), 'file-name-twice', True, learns()),
    'no mask': (change(segmentation=...), 'mask-missing', True, KeyError),
    'empty mask': (change(segmentation=[]), 'mask-missing', True, KeyError),
    'short polygon': (change(segmentation=[[1, 1, 5, 5]]), 'polygon-short', False, learns(ignored=True)),
    'odd polygon': (change(segmentation=[[1, 1, 5, 5, 1, 5, 3]]), 'polygon-short', False, learns(ignored=True)),
    'odd part': (
        change(segmentation=[[1, 1, 11, 1, 11, 7, 1, 7], [1, 2, 3]]),
        'polygon-part',
        False,
        learns(area=60),
    ),
    'text in polygon': (change(segmentation=[[1, 1, 'a', 1, 11, 13]]), 'mask-broken', True, (TypeError, ValueError)),
    'null in polygon': (change(segmentation=[[1, 1, None, 1, 11, 13]]), 'polygon-far', True, None),
    'flat polygon': (change(segmentation=[1, 1, 11, 1, 11, 13]), 'mask-broken', True, TypeError),
    'text as mask': (change(segmentation='a'), 'mask-broken', True, TypeError),
    'RLE': (change(segmentation=rle()), None, False, learns()),
    'RLE as list': (change(segmentation=rle(listed=True)), None, False, learns()),
    'RLE without size': (change(segmentation=dict(counts='a')), 'rle-incomplete', True, learns(ignored=True)),
    'RLE of text': (change(segmentation=dict(size=['a', 3], counts='a')), 'rle-incomplete', True, TypeError),
    'RLE turned': (change(segmentation=rle(WIDTH, HEIGHT)), 'rle-size', True, ValueError),
    'RLE of another size': (change(segmentation=rle(40, 60)), 'rle-size', True, ValueError),
    'RLE too long': (change(segmentation=dict(size=[9, 9], counts=[3, 400])), 'rle-length', True, ValueError),
    'RLE too short': (change(segmentation=rle(listed=True, cut=2)), 'rle-length', True, None),  # what lies in memory
    'RLE compressed, too short': (change(segmentation=rle(cut=9)), 'rle-length', True, None),
    'RLE no code': (change(segmentation=dict(size=[HEIGHT, WIDTH], counts='hello w')), 'rle-length', True, ValueError),
    'RLE not ASCII': (change(segmentation=dict(size=[HEIGHT, WIDTH], counts='é')), 'rle-incomplete', True, ValueError),
}


@pytest.mark.parametrize('apply, kind, stops, outcome', INPUTS.values(), ids=INPUTS)
def test_each_fault_is_named_and_mmdet_does_what_is_said(tmp_path, apply, kind, stops, outcome):
    data = make()
    apply(data)
    path = write(tmp_path, data)
    found = check_annotations(path, Use(NAMES, masks=True)).findings
    follow = [] if kind == 'stray-image' else ['stray-image']  # the objects of an image whose id is lost
    assert [item.name for item in found.numbers if item.name not in follow] == ([kind] if kind else [])
    assert [item.name for item in found.serious if item.name not in follow] == ([kind] if stops else [])
    if isinstance(outcome, type | tuple):
        with pytest.raises(outcome) as error:
            train(path)
        effect = next(iter(found.numbers)).effect
        assert error.type.__name__ in effect or 'an error' in effect
    elif outcome:
        outcome(train(path))


@pytest.mark.parametrize('apply, stops', [item[::2] for item in INPUTS.values()], ids=INPUTS)
def test_what_is_left_without_the_serious_faults_trains(tmp_path, apply, stops):
    data = make()
    apply(data)
    path = write(tmp_path, data)
    use = Use(NAMES, masks=True)
    before = check_annotations(path, use)
    assert (before.bad_objects.any() or before.bad_images.any()) == stops
    cleaned = write_cleaned(path, tmp_path / 'cleaned', before)
    cleaned = cleaned.rename(tmp_path / 'b.json')  # beside the images
    after = check_annotations(cleaned, use)
    assert not after.findings.serious
    left = before.trained & ~before.bad_objects
    trained = [] if not len(after.bad_images) else train(cleaned)
    assert sum(not ignored for _, ignored, _ in trained) == left.sum() == after.trained.sum()
    if not stops:
        assert json.loads(cleaned.read_text()) == json.loads(path.read_text())


@pytest.mark.parametrize('value', [math.nan, math.inf, 1e9])
def test_a_polygon_that_takes_all_memory_is_named(tmp_path, value):
    data = make()
    change(segmentation=[[1, 1, value, 1, 11, 13]])(data)
    (kind,) = check_annotations(write(tmp_path, data), Use(NAMES, masks=True)).findings.serious
    assert kind.name == 'polygon-far'
    limit = 2**31
    code = f"""
from pycocotools import mask
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
mask.frPyObjects([[1., 1., float('{value}'), 1., 11., 13.]], {HEIGHT}, {WIDTH})
"""
    assert subprocess.run([sys.executable, '-c', code], capture_output=True).returncode


def test_masks_count_only_where_they_are_loaded(tmp_path):
    data = make()
    for entry in data['annotations']:
        del entry['segmentation']
    path = write(tmp_path, data)
    assert not check_annotations(path, Use(NAMES)).findings.numbers
    (kind,) = check_annotations(path, Use(NAMES, masks=True)).findings.serious
    assert kind.name == 'mask-missing' and 'pvt-mm init --task detection' in kind.effect


def test_an_rle_is_ignored_without_poly2mask_and_a_crowd_is_anyway(tmp_path):
    data = make()
    data['annotations'][0]['segmentation'] = data['annotations'][1]['segmentation'] = rle()
    data['annotations'][1]['iscrowd'] = 1
    path = write(tmp_path, data)
    found = check_annotations(path, Use(NAMES, masks=True, poly2mask=False)).findings
    assert {kind.name: number for kind, number in found.numbers.items()} == {'rle-poly2mask': 1, 'crowd': 1}
    assert [kind.name for kind in found.serious] == ['rle-poly2mask']
    assert sum(ignored for _, ignored, _ in train(path, poly2mask=False)) == 2
    assert sum(ignored for _, ignored, _ in train(path)) == 1


def corners(data):
    for entry in data['annotations']:
        x, y, w, h = entry['bbox']
        entry['bbox'] = [3 * x, 2 * y, 3 * x + w, 2 * y + h]


def fractions(data):
    for entry in data['annotations']:
        x, y, w, h = entry['bbox']
        entry['bbox'] = [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]


@pytest.mark.parametrize('apply, kind', [(corners, 'box-corners'), (fractions, 'box-fractions')])
def test_boxes_of_another_form_are_told_over_the_whole_file(tmp_path, apply, kind):
    data = make()
    apply(data)
    path = write(tmp_path, data)
    annotations = check_annotations(path, Use(NAMES))
    assert [item.name for item in annotations.findings.serious] == [kind]
    assert annotations.findings.numbers[annotations.findings.serious[0]] == NUMBER
    boxes = [box for box, _, _ in train(path)]
    if kind == 'box-fractions':
        assert boxes == []
    else:
        assert all(box[2] == min(WIDTH, 2 * box[0] + 10) for box in boxes)  # not x + 10
    good = make()
    for entry in good['annotations']:  # objects that fill most of the image look like corners alone
        entry['bbox'] = [3, 2, 60, 45]
    assert not check_annotations(write(tmp_path, good), Use(NAMES)).findings.numbers


def test_many_boxes_that_mmdet_drops_end_a_training_run(tmp_path):
    data = make()
    for entry in data['annotations'][:2]:
        entry['bbox'][2] = 0
    path = write(tmp_path, data)
    (kind,) = check_annotations(path, Use(NAMES)).findings.serious
    assert kind.name == 'box-zero' and 'they are many' in kind.effect
    assert not check_annotations(path, Use(NAMES, training=False)).findings.serious


@pytest.mark.parametrize(
    'filters, kinds, images',
    [
        ({}, {'image-unlabelled': 'all of it is background'}, [1, 2, 3, 4]),
        (dict(filter_empty_gt=True), {'image-unlabelled': 'mmdet drops it (filter_empty_gt)'}, [1, 2, 4]),
        (
            dict(min_size=40),
            {'image-unlabelled': 'all of it is background', 'image-small': 'mmdet drops it'},
            [1, 2, 3],
        ),
    ],
)
def test_images_without_objects_and_small_ones_are_counted_as_the_filter_treats_them(tmp_path, filters, kinds, images):
    data = make()
    data['images'] += [
        dict(id=3, file_name='3.jpg', height=50, width=50),
        dict(id=4, file_name='4.jpg', height=30, width=90),
    ]
    data['annotations'].append(TWICE | dict(id=13, image_id=4, bbox=[1, 1, 0, 5]))
    path = write(tmp_path, data)
    with redirect_stdout(io.StringIO()):
        dataset = CocoDataset(
            ann_file=str(path), metainfo=dict(classes=NAMES), data_prefix=dict(img=''), filter_cfg=filters, pipeline=[]
        )
    found = check_annotations(path, Use.of(dataset, [dict(type='LoadAnnotations')], True)).findings
    kinds = kinds | {'image-emptied': 'all of it is background', 'box-zero': 'mmdet drops the object'}
    assert {kind.name: kind.effect for kind in found.numbers} == kinds
    assert [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))] == images


@pytest.mark.parametrize('order', [('annotations', 'categories', 'images'), ('images', 'annotations', 'categories')])
def test_lists_may_come_in_any_order(tmp_path, order):
    data = make()
    change(bbox=[70, 1, 10, 12])(data)
    path = write(tmp_path, {key: data[key] for key in order})
    annotations = check_annotations(path, Use(NAMES))
    assert [kind.name for kind in annotations.findings.numbers] == ['box-outside']
    assert annotations.names == list(NAMES) and annotations.objects == dict(ship=6, boat=6)


def test_examples_name_file_and_entry(tmp_path):
    data = make()
    for entry in data['annotations'][:7]:
        entry['bbox'] = 'a'
    del data['annotations'][7]['id']
    findings = check_annotations(write(tmp_path, data), Use(NAMES)).findings
    broken, missing = findings.to_list()
    assert broken['number'] == 7 and broken['examples'] == [f'a.json: annotation {i}' for i in range(1, 6)]
    assert missing['examples'] == ['a.json: annotations[7]']


def test_any_compressed_rle_that_fills_its_image_is_sound(tmp_path):
    rng, data = np.random.default_rng(0), make()
    data['images'] = [dict(id=i, file_name=f'{i}.jpg', height=20 + i, width=300 - i) for i in range(50)]
    data['annotations'] = []
    for image in data['images']:
        mask = rng.random((image['height'], image['width'])) < rng.choice([0.001, 0.5, 0.999])
        mask[:, : rng.integers(300)] = rng.integers(2)
        code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
        entry = dict(
            TWICE, id=image['id'], image_id=image['id'], segmentation=code | dict(counts=code['counts'].decode())
        )
        data['annotations'].append(entry)
    assert not check_annotations(write(tmp_path, data), Use(NAMES, masks=True)).findings.numbers


def lists(text: bytes) -> dict:
    return {name: list(entries) for name, entries in read_lists(io.BytesIO(text))}


@pytest.mark.parametrize('chunk', [1, 2, 7, 2**20])
def test_a_file_is_read_as_json_reads_it_wherever_its_pieces_end(monkeypatch, chunk):
    monkeypatch.setattr(coco_file, '_CHUNK', chunk)
    wanted = dict(
        a=[], b=[1, -2.5e-3, 'q"\\\u00e9\u4e2d]', None, True, math.inf, [1, [2]], {'x': [1, {'y': '}'}]}], c=[{}]
    )
    for settings in ({}, dict(indent=1), dict(ensure_ascii=False)):
        text = json.dumps(dict(info=12345.678, **wanted, z={'k': [1]}), **settings).encode()
        assert lists(text) == wanted
    for end in range(len(text)):
        with pytest.raises(ValueError):
            lists(text[:end])


@pytest.mark.parametrize(
    'text, message',
    [
        (b'', '{ is expected at character 0, there is the end of the file'),
        (b'[]', 'there is ['),
        (b'{"images": {}}', "'images' is no list"),
        (b'{"a": [1 2]}', ', or ] is expected at character 9, there is 2'),
        (b'{"a": [1,]}', 'Expecting value at character 9'),
        (b'{"a": [{"b" 1}]}', "Expecting ':' delimiter at character 12"),
        (b'{"a": []} x', 'more text after the end at character 10'),
        (b'{"a": ' + b'[' * 10**5, 'lists in lists without end'),
        (b'{"a": ["\xff"]}', "can't decode byte 0xff"),
        (b'{"a": [1' + b'0' * 5000 + b']}', 'Exceeds the limit'),
    ],
)
def test_a_file_that_is_no_json_is_one_error(text, message):
    with pytest.raises(ValueError) as error:
        lists(text)
    assert message in str(error.value)


def test_a_large_file_takes_little_memory(tmp_path):
    """40 MB of polygons, which take 100 MiB and more where they are parsed at once."""
    data = make()
    data['annotations'] = []
    path = write(tmp_path, data)
    head = path.read_text().replace('"annotations": []', '"annotations": [')
    start, _, end = head.partition('"annotations": [')
    entry = dict(TWICE, segmentation=[[i / 7 % 40 for i in range(200)]])
    with open(path, 'w') as file:
        file.write(start + '"annotations": [')
        line = json.dumps(entry)[len('{"id": 1') :]
        for i in range(12000):
            file.write(f'{"," if i else ""}{{"id": {i}{line}')
        file.write(']' + end)
    code = f"""
import resource
from pathlib import Path
from pvt_mm.data.annotations import Use, check_annotations
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert not check_annotations(Path('{path}'), Use({NAMES}, masks=True)).findings.serious
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True)
    assert path.stat().st_size > 30e6
    assert float(done.stdout.split()[-1]) < 40  # MiB
