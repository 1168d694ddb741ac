"""What is said of datasets and heads that do not agree with the files, before a model is built."""

import json

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from pvt_mm.data.agreement import check_agreement
from pvt_mm.errors import DataError

DETECTOR = dict(type='RetinaNet', bbox_head=dict(type='RetinaHead', num_classes=2))
SEGMENTER = dict(type='EncoderDecoder', decode_head=dict(type='FPNHead', num_classes=3))


def write_coco(path, names, sizes=(20,), iscrowd=0):
    """One image of 64x64 px, on which each category has a square of each of ``sizes``; ids from 5 on."""
    objects = [
        dict(
            id=len(sizes) * i + j, image_id=1, category_id=5 + i, bbox=[1, 2, size, size], area=size**2, iscrowd=iscrowd
        )
        for i in range(len(names))
        for j, size in enumerate(sizes)
    ]
    path.write_text(
        json.dumps(
            dict(
                images=[dict(id=1, file_name='a.jpg', height=64, width=64)],
                annotations=objects,
                categories=[dict(id=5 + i, name=name) for i, name in enumerate(names)],
            )
        )
    )
    return path


def coco(path, classes, **settings) -> dict:
    dataset = dict(
        type='CocoDataset',
        ann_file=str(path),
        data_prefix=dict(img=''),
        metainfo=dict(classes=classes),
        pipeline=[dict(type='LoadAnnotations')],
    )
    return dict(dataset=dataset | settings)


def check_detector(train, val=None, model=DETECTOR) -> list[str]:
    cfg = Config(dict(default_scope='mmdet', model=model, train_dataloader=train, val_dataloader=val))
    lines = []
    check_agreement(cfg, 'train_dataloader', 'val_dataloader', log=lines.append)
    return lines


def write_maps(folder, *maps, suffix='.png', image_suffix='.jpg'):
    """A label map of 4x4 px for each list of values, which repeat, and an image with the same name."""
    for kind in ('images', 'maps'):
        (folder / kind).mkdir(parents=True)
    for i, values in enumerate(maps):
        cv2.imwrite(str(folder / 'images' / f'{i}{image_suffix}'), np.zeros((4, 4, 3), np.uint8))
        cv2.imwrite(str(folder / 'maps' / f'{i}{suffix}'), np.resize(np.array(values), (4, 4)).astype(np.uint8))
    return folder


def check_segmenter(root, model=SEGMENTER, classes=('sky', 'road', 'car'), pipeline=None, **settings) -> list[str]:
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='images', seg_map_path='maps'),
        metainfo=dict(classes=classes),
        pipeline=pipeline or [dict(type='LoadAnnotations')],
    )
    cfg = Config(dict(default_scope='mmseg', model=model, train_dataloader=dict(dataset=dataset | settings)))
    lines = []
    check_agreement(cfg, 'train_dataloader', log=lines.append)
    return lines


def test_classes_that_are_those_of_the_file_pass_without_a_word(tmp_path):
    path = write_coco(tmp_path / 'a.json', ['ship', 'boat'])
    assert check_detector(coco(path, ('ship', 'boat')), coco(path, ('ship', 'boat'))) == []


def test_classes_without_an_object_in_training_are_named(tmp_path):
    path, other = write_coco(tmp_path / 'a.json', ['boat', 'ship']), tmp_path / 'b.json'
    content = json.loads(path.read_text())
    content['annotations'] = content['annotations'][:1]
    other.write_text(json.dumps(content))
    classes = ('boat', 'ship')
    lines = check_detector(coco(other, classes), coco(path, classes))
    assert lines == [f'train_dataloader: {other} has no object of 1 of the 2 classes: ship']
    assert check_detector(coco(path, classes), coco(other, classes)) == []


def test_validation_without_images_is_refused_and_without_objects_warned_of(tmp_path):
    path, other, classes = write_coco(tmp_path / 'a.json', ['boat', 'ship']), tmp_path / 'b.json', ('boat', 'ship')
    content = json.loads(path.read_text())
    other.write_text(json.dumps(dict(content, annotations=[])))
    lines = check_detector(coco(path, classes), coco(other, classes, test_mode=True))
    assert lines == [f'WARNING: val_dataloader: {other} has no object that counts, and each AP will be -1']
    other.write_text(json.dumps(dict(content, annotations=[], images=[])))
    with pytest.raises(DataError, match=f'^val_dataloader: {other} lists no image$'):
        check_detector(coco(path, classes), coco(other, classes, test_mode=True))


def test_a_metric_reads_the_images_and_classes_of_its_dataset(tmp_path):
    path, other, classes = write_coco(tmp_path / 'a.json', ['boat', 'ship']), tmp_path / 'b.json', ('boat', 'ship')
    cfg = Config(dict(default_scope='mmdet', model=DETECTOR, val_dataloader=coco(path, classes)))
    cfg.val_evaluator = dict(type='CocoMetric', ann_file=str(other))
    content = json.loads(path.read_text())
    other.write_text(json.dumps(content))
    check_agreement(cfg, 'val_dataloader')  # a copy
    cfg.val_evaluator = (dict(cfg.val_evaluator), dict(type='DumpDetResults'))
    for change in (dict(images=[]), dict(categories=content['categories'][::-1])):
        other.write_text(json.dumps(content | change))
        with pytest.raises(DataError, match=f'and the file of val_.* set val_evaluator.ann_file={path}$'):
            check_agreement(cfg, 'val_dataloader')


@pytest.mark.parametrize(
    'classes, message',
    [
        (('boat', 'ship'), r"another order .* would exchange the names: write metainfo.classes=\('ship', 'boat'\)"),
        (('shp', 'boat'), r"metainfo.classes has 'shp' for 'ship' of .*: write the names as the file does"),
        (('Ship', 'Boat'), r"metainfo.classes has 'Ship' for 'ship', 'Boat' for 'boat' of"),
        (
            ('ship', 'car'),
            r'1 of the 2 classes of the config are no categories of .*: car. The file has ship, boat: set',
        ),
        (
            ('cat', 'dog'),
            r'2 of the 2 classes of the config are no categories of .*: cat, dog. The file has ship, boat',
        ),
        (('ship', 'boat', 'ship'), r'metainfo.classes names ship twice'),
        ('ship', "metainfo.classes is 'ship' and no list of names"),
        ((1, 2), r'metainfo.classes is \(1, 2\) and no list of names'),
    ],
)
def test_classes_that_mmdet_would_give_to_other_boxes_are_refused(tmp_path, classes, message):
    path = write_coco(tmp_path / 'a.json', ['ship', 'boat'])
    with pytest.raises(DataError, match=f'train_dataloader: .*{message}'):
        check_detector(coco(path, classes))


def test_categories_of_one_name_are_refused(tmp_path):
    path = write_coco(tmp_path / 'a.json', ['ship', 'boat', 'ship'])
    for classes in (('ship', 'boat'), ('ship', 'boat', 'ship')):
        with pytest.raises(DataError, match='has several categories with the name ship: give each its own'):
            check_detector(coco(path, classes))


def test_categories_that_the_config_leaves_out_are_counted_and_need_nothing(tmp_path):
    path = write_coco(tmp_path / 'a.json', ['ship', 'crane', 'boat'], sizes=(20, 30))
    assert check_detector(coco(path, ('ship', 'boat'))) == [
        f'train_dataloader: the config leaves out 1 categories of {path}: crane (2 objects)'
    ]


def test_a_training_set_without_a_usable_object_is_refused(tmp_path):
    dataset = coco(write_coco(tmp_path / 'a.json', ['ship', 'boat'], sizes=(0, 0.5)), ('ship', 'boat'))
    with pytest.raises(DataError) as error:
        check_detector(dataset)
    zero, small = str(error.value).splitlines()
    assert '2 times box of zero width or height (a.json: annotation 0). In training: mmdet drops the object' in zero
    assert '2 times box under 1 px (a.json: annotation 1)' in small
    path = write_coco(tmp_path / 'b.json', ['ship', 'boat'], sizes=(20, 30), iscrowd=1)
    dataset = coco(path, ('ship', 'boat'))
    with pytest.raises(DataError, match=r'mmdet keeps no object of .*ship \(2 objects\), boat \(2 objects\)'):
        check_detector(dataset)
    check_detector({}, val=dataset)  # testing on it is no harm
    check_detector(coco(path, ('ship', 'boat'), pipeline=[dict(type='LoadEmptyAnnotations')]))  # nor without labels
    path = write_coco(tmp_path / 'a.json', ['ship', 'boat'])
    with pytest.raises(DataError, match="no object .* filter_cfg .*'min_size': 65"):
        check_detector(coco(path, ('ship', 'boat'), filter_cfg=dict(min_size=65)))


@pytest.mark.parametrize(
    'text, message',
    [
        ('{', 'Expecting value at character 1'),
        ('[]', 'ValueError: { is expected at character 0, there is \\['),
        ('{"images": []}', "KeyError: 'categories'"),
        ('{"categories": [1]}', 'TypeError'),
        ('{"categories": [{"id": 1, "name": 3}]}', 'TypeError: the name of a category is no text'),
    ],
)
def test_a_file_that_mmdet_cannot_read_is_named(tmp_path, text, message):
    (tmp_path / 'a.json').write_text(text)
    with pytest.raises(DataError, match=rf'^train_dataloader: .*a.json is no file in the form of COCO \(.*{message}'):
        check_detector(coco(tmp_path / 'a.json', ('ship',)))


def test_wrapped_datasets_are_checked(tmp_path):
    good, bad = (write_coco(tmp_path / f'{name}.json', [name, 'boat']) for name in ('ship', 'shop'))
    datasets = [coco(path, ('ship', 'boat'))['dataset'] for path in (good, bad)]
    wrapped = dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=datasets))
    with pytest.raises(DataError, match=r"metainfo.classes has 'ship' for 'shop' of .*shop.json") as error:
        check_detector(dict(dataset=wrapped))
    assert len(str(error.value).splitlines()) == 1


def test_metainfo_in_the_training_set_alone_is_refused_with_a_line_for_each_fault(tmp_path):
    path = write_coco(tmp_path / 'a.json', ['ship', 'crane'])
    with pytest.raises(DataError) as error:
        check_detector(coco(path, ('ship', 'crane')), coco(path, None, metainfo=None))
    missing, differing = str(error.value).splitlines()
    assert missing.startswith('val_dataloader: 80 of the 80 classes of the config are no categories of')
    assert differing.startswith(
        'val_dataloader: its 80 classes (person, bicycle, car, motorcycle, airplane and 75 more)'
    )
    assert differing.endswith('are not the 2 of train_dataloader (ship, crane): give both datasets the same metainfo')


@pytest.mark.parametrize(
    'model, keys',
    [
        (dict(bbox_head=dict(num_classes=1)), ['model.bbox_head.num_classes=1']),
        (
            dict(rpn_head=dict(num_classes=1), roi_head=dict(bbox_head=[dict(num_classes=2), dict(num_classes=80)])),
            ['model.roi_head.bbox_head.1.num_classes=80'],
        ),
        (
            dict(roi_head=dict(bbox_head=dict(num_classes=3), mask_head=dict(num_classes=4))),
            ['model.roi_head.bbox_head.num_classes=3', 'model.roi_head.mask_head.num_classes=4'],
        ),
        (dict(roi_head=dict(mask_head=dict(num_classes=1, class_agnostic=True))), []),
        (dict(roi_head=dict(semantic_head=dict(num_classes=183))), []),
        (dict(backbone=dict(num_classes=1000), bbox_head=dict(num_classes=2)), []),
        (dict(language_model=dict(type='BertModel'), bbox_head=dict(num_classes=256)), []),
    ],
)
def test_each_head_has_as_many_classes_as_the_datasets(tmp_path, model, keys):
    train = coco(write_coco(tmp_path / 'a.json', ['ship', 'boat']), ('ship', 'boat'))
    if not keys:
        assert check_detector(train, model=model) == []
        return
    with pytest.raises(DataError) as error:
        check_detector(train, model=model)
    for line, key in zip(str(error.value).splitlines(), keys, strict=True):
        assert line.startswith(f'{key}, and the datasets have 2 classes (ship, boat): set {key.split("=")[0]}=2')


@pytest.mark.parametrize(
    'head, found, wanted',
    [
        (dict(type='Shared2FCBBoxHead'), '.num_classes=80 by default', '.num_classes=2'),
        (dict(type='FCNMaskHead'), '.num_classes=80 by default', '.num_classes=2'),
        (dict(type='SSDHead', in_channels=(8,)), '.num_classes=80 by default', '.num_classes=2'),
        (
            dict(type='Mask2FormerHead'),
            '.num_things_classes=80 and HEAD.num_stuff_classes=53 by default',
            '.num_things_classes=2 HEAD.num_stuff_classes=0',
        ),
        (
            dict(type='Mask2FormerHead', num_things_classes=2),
            '.num_things_classes=2 and HEAD.num_stuff_classes=53',
            '.num_things_classes=2 HEAD.num_stuff_classes=0',
        ),
    ],
)
def test_the_number_of_classes_that_a_head_has_by_default_is_checked(tmp_path, head, found, wanted):
    train = coco(write_coco(tmp_path / 'a.json', ['ship', 'boat']), ('ship', 'boat'))
    with pytest.raises(DataError) as error:
        check_detector(train, model=dict(bbox_head=head))
    expected = f'HEAD{found}, and the datasets have 2 classes (ship, boat): set HEAD{wanted}'
    assert str(error.value) == expected.replace('HEAD', 'model.bbox_head')


def test_a_head_that_requires_its_number_of_classes_or_has_none_is_left_alone(tmp_path):
    train = coco(write_coco(tmp_path / 'a.json', ['ship', 'boat']), ('ship', 'boat'))
    check_detector(train, model=dict(bbox_head=dict(type='RetinaHead'), grid_head=dict(type='GridHead')))
    check_detector(train, model=dict(rpn_head=dict(type='RPNHead')))


def test_a_segmenters_heads_are_checked_and_one_output_for_two_classes_is_accepted(tmp_path):
    root = write_maps(tmp_path / 'data', [0, 1])
    binary = dict(decode_head=dict(num_classes=2, out_channels=1), auxiliary_head=dict(num_classes=1, out_channels=1))
    check_segmenter(root, binary, ('sky', 'road'))
    boundary = dict(type='STDCHead', num_classes=2, boundary_threshold=0.1)
    check_segmenter(root, dict(decode_head=dict(num_classes=3), auxiliary_head=[boundary]))
    wrong = dict(decode_head=dict(num_classes=2), auxiliary_head=[dict(num_classes=2), dict(num_classes=19)])
    with pytest.raises(DataError, match=r'^model.auxiliary_head.1.num_classes=19, .* set .*=2$'):
        check_segmenter(root, wrong, ('sky', 'road'))


def test_the_values_of_label_maps_are_shown_with_their_classes(tmp_path):
    root = write_maps(tmp_path, [0, 0, 0, 1], [0, 0, 255, 255])
    assert check_segmenter(root) == [
        'train_dataloader: the values in 2 of 2 label maps, their classes and shares of the pixels',
        '    0  sky                   62.5%',
        '    1  road                  12.5%',
        '  255  ignored               25.0%',
        '  not in these maps: car',
    ]
    assert '    1  sky                   12.5%' in check_segmenter(root, reduce_zero_label=True)


@pytest.mark.parametrize(
    'maps, settings, message',
    [
        ([[0, 1], [1, 3]], {}, r'maps/1.png holds the value 3, and the 3 classes are 0 to 2 .*True if 0 is no class'),
        ([[0, 4]], dict(reduce_zero_label=True), 'holds the value 4, and the 3 classes are 1 to 3'),
        ([[0, 255]] * 40, {}, 'the 40 label maps hold 0 and 255 alone. Ignored: 255 .reduce_zero_label=False'),
        ([[0, 255]], dict(reduce_zero_label=True), 'the 1 label maps hold 0 and 255 alone. Ignored: 0 and 255'),
        ([[0]], dict(reduce_zero_label=True), 'the 1 label maps hold 0 alone'),
        (
            [[0, 1]],
            dict(pipeline=[dict(type='LoadAnnotations', reduce_zero_label=True)]),
            'reduce_zero_label is True in LoadAnnotations and False in the dataset',
        ),
        ([[0, 1]], dict(img_suffix='.png'), r"no image in .*images ends with img_suffix='.png'; .* has 1 .jpg files"),
        (
            [[0, 1]] * 2,
            dict(seg_map_suffix='_map.png'),
            r"2 of the 2 images have no label map .*'_map.png': .*0_map.png; .*maps has 2 .png files",
        ),
    ],
)
def test_label_maps_that_training_would_misread_are_refused(tmp_path, maps, settings, message):
    with pytest.raises(DataError, match=f'train_dataloader: .*{message}') as error:
        check_segmenter(write_maps(tmp_path / 'data', *maps), **settings)
    assert len(str(error.value).splitlines()) == 1


def test_a_class_outside_the_sample_tells_a_rare_class_from_a_mask(tmp_path):
    maps = [[0, 255]] * 64
    maps[1] = [0, 1, 255]  # the sample takes every second map
    assert any('road' in line for line in check_segmenter(write_maps(tmp_path / 'data', *maps)))


def test_names_in_a_split_file_without_an_image_are_counted(tmp_path):
    root = write_maps(tmp_path / 'data', [0, 1])
    (root / 'train.txt').write_text('0\n1\n2\n')
    with pytest.raises(DataError, match=r'2 of the 3 images of .*train.txt are missing .*images/1.jpg'):
        check_segmenter(root, ann_file='train.txt')


@pytest.mark.parametrize(
    'pixels, message',
    [
        (np.zeros((4, 4, 3), np.uint8), 'has 3 channels: a label map has one'),
        (np.full((4, 4), 300, np.uint16), 'holds values from 300 to 300, and mmseg reads 0 to 255'),
        (np.zeros((4, 5), np.uint8), 'is 4x5 px, and its image .*images/0.jpg is 4x4 px'),
        (None, 'cannot be decoded'),
    ],
)
def test_a_file_that_is_no_label_map_is_named(tmp_path, pixels, message):
    root = write_maps(tmp_path / 'data', [0, 1])
    (root / 'maps/0.png').write_bytes(b'text' if pixels is None else cv2.imencode('.png', pixels)[1].tobytes())
    with pytest.raises(DataError, match=f'the label map .*maps/0.png {message}'):
        check_segmenter(root)


def test_labels_from_zero_with_reduce_zero_label_are_warned_of_where_all_are_seen(tmp_path):
    shifted = check_segmenter(write_maps(tmp_path / 'a', [0, 1, 2]), reduce_zero_label=True)[-1]
    assert shifted.startswith('WARNING: train_dataloader: the label maps hold the values 0 to 2')
    assert 'car is never seen. If 0 is sky, set reduce_zero_label=False' in shifted
    assert not any('WARNING' in line for line in check_segmenter(tmp_path / 'a'))
    for name, values in dict(b=[0, 1, 2, 3], c=[0, 1], d=[1, 2]).items():
        lines = check_segmenter(write_maps(tmp_path / name, values), reduce_zero_label=True)
        assert not any('WARNING' in line for line in lines)


def test_a_test_set_without_label_maps_and_data_on_a_server_are_left_alone(tmp_path):
    root = write_maps(tmp_path, [7])
    assert check_segmenter(root, data_prefix=dict(img_path='images')) == []
    assert check_segmenter(root, pipeline=[dict(type='LoadImageFromFile')]) == []
    assert check_detector(coco('s3://bucket/a.json', ('ship',))) == []


def test_classes_that_are_no_part_of_the_datasets_own_are_refused(tmp_path):
    root = write_maps(tmp_path, [1])
    with pytest.raises(DataError, match='train_dataloader: the dataset cannot be built: .*not a subset'):
        check_segmenter(root, classes=('wall', 'kraken'), type='ADE20KDataset', reduce_zero_label=True)


def test_a_subset_of_the_datasets_own_classes_is_read_as_mmseg_maps_it(tmp_path):
    root = write_maps(tmp_path, [0, 1, 3])  # wall, building and sky are 1 to 3
    lines = check_segmenter(root, classes=('sky', 'wall', 'tree'), type='ADE20KDataset', reduce_zero_label=True)
    assert '    1  wall                  31.2%' in lines and '    3  sky                   31.2%' in lines


def test_the_first_process_says_it_for_all(tmp_path, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert check_segmenter(write_maps(tmp_path, [7])) == []
