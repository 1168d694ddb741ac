"""What is said of all label maps of a dataset, and that mmseg reads them as is said."""

import re

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.datasets import ADE20KDataset, BaseSegDataset
from PIL import Image
from torch.nn.functional import cross_entropy

from pvt_mm.data.findings import Findings
from pvt_mm.data.label_maps import check_all_label_maps

GOOD = np.resize(np.array([0, 1, 2, 255], np.uint8), (8, 8))
HALF = cv2.imencode('.png', np.arange(64, dtype=np.uint8).reshape(8, 8))[1].tobytes()[:60]
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]


def write(folder, **maps):
    """An image of 8x8 px and a label map for each name: pixels, the bytes of the file, or None for no map."""
    for kind in ('images', 'maps'):
        (folder / kind).mkdir(parents=True)
    for name, content in maps.items():
        cv2.imwrite(str(folder / 'images' / f'{name}.jpg'), np.zeros((8, 8, 3), np.uint8))
        if content is not None:
            encoded = content if isinstance(content, bytes) else cv2.imencode('.png', content)[1].tobytes()
            (folder / 'maps' / f'{name}.png').write_bytes(encoded)
    return folder


def build(root, classes=('sky', 'road', 'car'), pipeline=(), **settings) -> BaseSegDataset:
    init_default_scope('mmseg')
    return BaseSegDataset(
        data_root=str(root),
        data_prefix=dict(img_path='images', seg_map_path='maps'),
        metainfo=dict(classes=classes),
        pipeline=list(pipeline),
        **settings,
    )


def check(dataset) -> tuple[dict[str, list[str]], list[str]]:
    findings, lines = Findings(), []
    check_all_label_maps(dataset, 255, findings, lines.append)
    return {kind.name: examples for kind, examples in findings.examples.items()}, lines


def learn(dataset) -> float:
    """Loads the last image as training does, and computes a loss."""
    data = dataset[len(dataset) - 1]
    target = data['data_samples'].gt_sem_seg.data
    return cross_entropy(torch.zeros(1, 3, *data['inputs'].shape[1:]), target, ignore_index=255).item()


@pytest.mark.parametrize(
    'content, kind, text, error',
    [
        (b'text', 'map-damaged', 'cannot be decoded', OSError),
        (HALF, 'map-damaged', 'cannot be decoded', OSError),
        (None, 'map-missing', 'does not exist', FileNotFoundError),
        (np.zeros((8, 8, 3), np.uint8), 'map-channels', 'has 3 channels', Exception),
        (np.full((8, 8), 256, np.uint16), 'map-16-bit', 'from 256 to 256', None),
        (np.zeros((8, 9), np.uint8), 'map-size', 'is 8x9 px, and its image .*bad.jpg is 8x8 px', Exception),
        (np.full((8, 8), 3, np.uint8), 'map-class', 'holds the value 3, and the 3 classes are 0 to 2', IndexError),
        (np.full((8, 8), 255, np.uint8), 'map-ignored', 'holds 255 alone', None),
    ],
    ids=['text', 'half', 'missing', 'channels', '16 bits', 'size', 'class', 'ignored'],
)
def test_what_is_said_of_a_label_map_is_what_training_does(tmp_path, content, kind, text, error):
    root = write(tmp_path, a=GOOD, bad=content)
    found, _ = check(build(root))
    assert list(found) == [kind]
    [example] = found[kind]
    assert example.startswith(f'{root}/maps/bad.png ') and re.search(text, example)
    dataset = build(root, pipeline=PIPELINE)
    if error:
        with pytest.raises(error):
            learn(dataset)
    elif kind == 'map-16-bit':
        target = dataset[1]['data_samples'].gt_sem_seg.data
        assert (target == 0).all()  # 256 without its high byte
    else:
        assert np.isnan(learn(dataset))


def test_a_dataset_of_good_maps_has_no_faults_and_its_values_are_shown(tmp_path):
    found, lines = check(build(write(tmp_path, a=GOOD, b=GOOD)))
    assert found == {}
    assert lines == [
        f'the values in the 2 label maps of {tmp_path}/maps, their classes and shares of the pixels',
        *(f'  {value:3d}  {name:20s}  25.0%' for value, name in enumerate(('sky', 'road', 'car'))),
        '  255  ignored               25.0%',
    ]


def test_every_map_is_read_and_each_fault_counted(tmp_path):
    root = write(tmp_path, **{f'{i:02}': GOOD for i in range(60)})
    for i in (7, 33, 59):
        (root / 'maps' / f'{i:02}.png').write_bytes(b'text')
    findings = Findings()
    check_all_label_maps(build(root), 255, findings, lambda line: None)
    assert [(kind.name, number) for kind, number in findings.numbers.items()] == [('map-damaged', 3)]


def test_maps_without_an_image_are_named_unless_a_file_lists_the_images(tmp_path):
    root = write(tmp_path, a=GOOD, b=GOOD)
    (root / 'images' / 'b.jpg').unlink()
    assert check(build(root))[0] == {'map-alone': [f'{root}/maps/b.png']}
    (root / 'list.txt').write_text('a')
    assert check(build(root, ann_file='list.txt'))[0] == {}


def test_classes_that_no_map_holds_are_named(tmp_path):
    root = write(tmp_path, a=np.minimum(GOOD, 1))
    assert check(build(root))[0] == {'class-unseen': [f'{root}/maps: car']}


def test_values_are_those_that_mmseg_maps(tmp_path):
    root = write(tmp_path, a=np.resize(np.array([0, 1, 2, 3], np.uint8), (8, 8)))
    assert list(check(build(root))[0]) == ['map-class']
    assert check(build(root, reduce_zero_label=True))[0] == {}


@pytest.mark.parametrize('values, kind', [([0, 1, 2], 'maps-shifted'), ([0, 255], 'maps-mask')])
def test_a_shift_by_one_and_masks_of_0_and_255_are_seen(tmp_path, values, kind):
    root = write(tmp_path, a=np.resize(np.array(values, np.uint8), (8, 8)))
    assert kind in check(build(root, reduce_zero_label=True))[0]


def test_a_map_fits_the_image_as_its_exif_orientation_turns_it(tmp_path):
    root = write(tmp_path, a=np.resize(GOOD, (8, 6)))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (8, 6)).save(root / 'images' / 'a.jpg', exif=exif)
    assert check(build(root))[0] == {}


def test_real_ade20k_maps_are_whole(real_ade):
    dataset = ADE20KDataset(
        data_root=str(real_ade),
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        lazy_init=True,
    )
    found, lines = check(dataset)
    assert list(found) in ([], ['class-unseen']) and lines
