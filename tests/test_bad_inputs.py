"""The bad-input matrix: what is said of faulty data and settings before a run, and what training and testing do then.

Every row is a small dataset with one fault. None is silent: ``says`` is found in what the checks of a run (or, for
faults that only reading every file shows, ``check_data``) print or raise.
"""

import contextlib
import io
import json
import re
import shutil
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, DefaultScope
from PIL import Image

from pvt_mm.commands.check_data import find_faults
from pvt_mm.commands.checks import check_testing, check_training
from pvt_mm.commands.launch import check_checkpoint, check_data, check_pretrained, find_config
from pvt_mm.commands.options import check_options
from pvt_mm.data.agreement import check_agreement
from pvt_mm.engine.unreadable import guard_loading
from pvt_mm.engine.workers import Notes
from pvt_mm.errors import SettingError

SIDE, IMAGES, OBJECTS = 64, 4, 3
CLASSES = dict(coco=('ship', 'boat'), maps=('sky', 'road', 'car'))
CONFIGS = dict(
    detector='retinanet/pvt_nano_digits', instances='mask_rcnn/pvt_nano_digits', semantic='semantic_fpn/pvt_nano_digits'
)
ENDS = 'ends'  # the check ends it, before anything is built
RUNS = 'runs'  # it runs on: a step gives a finite loss, or predictions
# Anything else is a regular expression of the error that the file raises when it is read.


class Case:
    """A config and its data, which a row makes faulty: the files in ``root``, and ``coco``, the content of a.json."""

    def __init__(self, system: str, root: Path):
        self.root, self.options = root, {}
        self.cfg = deepcopy(base(system))
        (root / 'images').mkdir()
        pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
        for i in range(IMAGES):
            Image.fromarray(pixels).save(root / f'images/{i}.jpg')
        self.cfg.merge_from_dict(dict(work_dir=str(root / 'work')))
        self.coco = None if system == 'semantic' else make_coco()
        if self.coco:
            (root / 'a.json').write_text(json.dumps(self.coco))
        else:
            (root / 'maps').mkdir()
            for i in range(IMAGES):
                self.draw(i, np.resize(np.arange(3, dtype=np.uint8), (SIDE, SIDE)))
        for part in ('train', 'val', 'test'):
            self.cfg[f'{part}_dataloader'].dataset.data_root = str(root)

    def draw(self, i: int, values: np.ndarray) -> None:
        cv2.imwrite(str(self.root / f'maps/{i}.png'), values)

    def write(self) -> None:
        """Writes the content of a.json where a row changed it."""
        if self.coco and self.coco != make_coco():
            (self.root / 'a.json').write_text(json.dumps(self.coco))


def make_coco() -> dict:
    """Four images with three objects each; that of id i is a square at (i, i) with a polygon."""
    objects = [
        dict(
            id=i,
            image_id=i % IMAGES,
            category_id=1 + i % 2,
            bbox=[i, i, 20, 20],
            area=400,
            iscrowd=0,
            segmentation=[[i, i, i + 20, i, i + 20, i + 20, i, i + 20]],
        )
        for i in range(1, 1 + IMAGES * OBJECTS)
    ]
    images = [dict(id=i, file_name=f'{i}.jpg', height=SIDE, width=SIDE) for i in range(IMAGES)]
    categories = [dict(id=1 + i, name=name) for i, name in enumerate(CLASSES['coco'])]
    return dict(images=images, annotations=objects, categories=categories)


@cache
def base(system: str) -> Config:
    """A digits config on the data of a :class:`Case`, with a schedule that fits four images."""
    cfg = Config.fromfile(find_config(CONFIGS[system]))
    settings = {'param_scheduler': [dict(type='CosineAnnealingLR', begin=0, T_max=4, end=4)], 'train_cfg.max_epochs': 4}
    for name in ('train', 'val', 'test'):
        dataset = f'{name}_dataloader.dataset'
        if system == 'semantic':
            settings |= {
                f'{dataset}.data_prefix': dict(img_path='images', seg_map_path='maps'),
                f'{dataset}.reduce_zero_label': False,
                f'{dataset}.pipeline': [
                    dict(type='LoadImageFromFile'),
                    dict(type='LoadAnnotations'),
                    dict(type='PackSegInputs'),
                ],
            }
        else:
            settings |= {
                f'{dataset}.ann_file': 'a.json',
                f'{dataset}.metainfo': dict(classes=CLASSES['coco']),
                f'{dataset}.data_prefix': dict(img='images/'),
                f'{dataset}.filter_cfg': None,
            }
    for head, number in (
        dict(detector={'bbox_head': 2}, semantic={'decode_head': 3})
        .get(system, {'roi_head.bbox_head': 2, 'roi_head.mask_head': 2})
        .items()
    ):
        settings[f'model.{head}.num_classes'] = number
    if system == 'semantic':
        settings['model.data_preprocessor.size'] = (SIDE, SIDE)
    cfg.merge_from_dict(settings)
    if system == 'semantic':
        for name in ('train', 'val', 'test'):
            cfg[f'{name}_dataloader'].dataset.metainfo = dict(classes=CLASSES['maps'])  # without the digits' palette
    else:
        for name in ('train', 'val', 'test'):
            for step in cfg[f'{name}_dataloader'].dataset.pipeline:
                if step.type == 'Resize':
                    step.scale = (SIDE, SIDE)
        cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = None
    return cfg


@cache
def model(system: str):
    with DefaultScope.overwrite_default_scope(base(system).default_scope):
        return MODELS.build(deepcopy(base(system).model))


Fault = Callable[[Case], None]


def first(**values) -> Fault:
    """The first object has other values."""
    return lambda case: case.coco['annotations'][0].update(values)


def each(**values) -> Fault:
    """Every object has; a function makes the value from the object."""

    def change(case: Case) -> None:
        for entry in case.coco['annotations']:
            entry.update({key: value(entry) if callable(value) else value for key, value in values.items()})

    return change


def lacks(key: str) -> Fault:
    def change(case: Case) -> None:
        for entry in case.coco['annotations']:
            del entry[key]

    return change


def image(**values) -> Fault:
    return lambda case: case.coco['images'][0].update(values)


def moved(case: Case) -> None:
    """The file names have the folder, which the config has too."""
    for entry in case.coco['images']:
        entry['file_name'] = f'images/{entry["file_name"]}'


def categories(*names: str) -> Fault:
    return lambda case: case.coco.update(categories=[dict(id=1 + i, name=name) for i, name in enumerate(names)])


def classes(*names, parts=('train', 'val', 'test')) -> Fault:
    def change(case: Case) -> None:
        for part in parts:
            case.cfg[f'{part}_dataloader'].dataset.metainfo = dict(classes=names)

    return change


def setting(**values) -> Fault:
    """Settings of the config; __ stands for a dot."""
    return lambda case: case.cfg.merge_from_dict({key.replace('__', '.'): value for key, value in values.items()})


def of_datasets(**values) -> Fault:
    def change(case: Case) -> None:
        for part in ('train', 'val', 'test'):
            case.cfg[f'{part}_dataloader'].dataset.update(values)

    return change


def option(key: str, value=1) -> Fault:
    return lambda case: case.options.update({key: value})


def content(name: str, data: bytes) -> Fault:
    return lambda case: (case.root / name).write_bytes(data)


def saved(name: str, mode: str = 'RGB', size=(SIDE, SIDE), **kwargs) -> Fault:
    """The first image is of another kind, and its entry follows; another size has no objects."""

    def change(case: Case) -> None:
        (case.root / 'images/0.jpg').unlink()
        Image.new(mode, size).save(case.root / 'images' / name, **kwargs)
        if case.coco:
            case.coco['images'][0].update(file_name=name, width=size[0], height=size[1])
            for entry in case.coco['annotations']:
                if size != (SIDE, SIDE) and entry['image_id'] == 0:
                    entry['image_id'] = 1

    return change


def removed(name: str) -> Fault:
    def change(case: Case) -> None:
        path = case.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def cut(name: str, end: bytes = b'') -> Fault:
    """Half of a file is left, and another end."""

    def change(case: Case) -> None:
        path = case.root / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + end)

    return change


def replaced_by_folder(name: str) -> Fault:
    def change(case: Case) -> None:
        (case.root / name).unlink()
        (case.root / name).mkdir()

    return change


def maps(values, dtype=np.uint8) -> Fault:
    """Every label map holds these values in turn."""

    def change(case: Case) -> None:
        for i in range(IMAGES):
            case.draw(i, np.resize(np.array(values, dtype), (SIDE, SIDE)))

    return change


def first_map(shape, dtype=np.uint8, value=1) -> Fault:
    return lambda case: case.draw(0, np.full(shape, value, dtype))


def corners(entry) -> list:
    left, top, width, height = entry['bbox']
    return [left + 30, top + 30, left + 30 + 8, top + 30 + 8]


PRETRAINED = dict(type='Pretrained', checkpoint='pvt://tiny')
CAFFE = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)
FULL_RLE = dict(size=[SIDE, SIDE], counts=[0, SIDE * SIDE])


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


class Row(NamedTuple):
    system: str
    input: str
    fault: Fault
    says: str
    training: str = ENDS
    testing: str = ENDS


DETECTOR = [
    # files
    ('no annotation file', removed('a.json'), 'the annotation file .*a.json is missing'),
    ('no image folder', removed('images'), 'the folder .*images is missing or empty'),
    ('annotations that are no JSON', content('a.json', b'{"images": ['), 'a.json is no file in the form of COCO'),
    ('JSON of another form', content('a.json', b'{"shapes": []}'), 'a.json is no file in the form of COCO'),
    ('an empty annotation file', content('a.json', b''), 'a.json is no file in the form of COCO'),
    ('an image is missing', removed('images/0.jpg'), 'image that does not exist', 'No such file', 'No such file'),
    ('no image where the config looks', moved, 'none of the', ENDS, 'No such file'),
    ('an image of 0 bytes', content('images/0.jpg', b''), 'image file of 0 bytes', 'cannot be read', 'cannot be read'),
    ('a text named .jpg', content('images/0.jpg', b'GPS'), 'no format that OpenCV', 'not decode', 'not decode'),
    ('a folder named .jpg', replaced_by_folder('images/0.jpg'), "folder with an image's name", 'Is a dir', 'Is a dir'),
    ('half of a JPEG', cut('images/0.jpg'), 'damaged or truncated image', 'does not decode', 'does not decode'),
    ('half of a JPEG that ends as one', cut('images/0.jpg', b'\xff\xd9'), 'JPEG without its last part', RUNS, RUNS),
    ('half of a PNG', lambda c: (saved('0.png')(c), cut('images/0.png')(c)), 'damaged or trunc', 'cannot be', 'cannot'),
    ('a 16-bit PNG', saved('0.png', 'I;16'), 'image of 16 bits', RUNS, RUNS),
    ('a CMYK JPEG', saved('0.jpg', 'CMYK'), 'image in CMYK', RUNS, RUNS),
    ('a grey image', saved('0.jpg', 'L'), 'image without colour', RUNS, RUNS),
    ('an image with transparency', saved('0.png', 'RGBA'), 'image with transparency', RUNS, RUNS),
    ('an image with a palette', saved('0.png', 'P'), 'image with a palette', RUNS, RUNS),
    ('a PNG named .jpg', saved('0.jpg', format='PNG'), "name has another format's ending", RUNS, RUNS),
    ('an EXIF turn', saved('0.jpg', exif=exif(3)), 'image with an EXIF orientation', RUNS, RUNS),
    ('an image of 1 pixel', saved('0.jpg', size=(1, 1)), 'image with a side of 1 pixel', RUNS, RUNS),
    ('a very long image', saved('0.png', size=(9000, 2)), 'over 2000 times as long as wide', 'resize', 'resize'),
    ('an image of another size', image(height=SIDE // 2), 'image of another size than its annotation', RUNS, RUNS),
    # images and objects
    ('an image without height', lambda c: c.coco['images'][0].pop('height'), 'image without a usable id, file_name'),
    ('an image of height 0', image(height=0), 'image of zero or negative height'),
    ('two images of one id', image(id=1), 'image whose id another has'),
    ('an image listed twice', image(file_name='1.jpg'), 'image that is listed several times'),
    ('an image without objects', each(image_id=1), 'image without objects', RUNS, RUNS),
    ('an entry that is no object', lambda c: c.coco['annotations'].append(7), 'entry that is no object of JSON'),
    ('a negative box', first(bbox=[30, 30, -20, -20]), 'box of negative width'),
    ('a box with NaN', first(bbox=[float('nan'), 1, 20, 20]), 'box with NaN'),
    ('an infinite box', first(bbox=[1, 1, float('inf'), 20]), 'box with an infinite number'),
    ('a box of width 0', first(bbox=[1, 1, 0, 20]), 'box of zero width', RUNS, RUNS),
    ('all boxes of width 0', each(bbox=[1, 1, 0, 20]), 'box of zero width .*they are many', ENDS, RUNS),
    ('a box outside', first(bbox=[100, 100, 20, 20]), 'box wholly outside', RUNS, RUNS),
    ('a box that reaches out', first(bbox=[50, 50, 60, 60]), 'box that reaches out', RUNS, RUNS),
    ('boxes as corners', each(bbox=corners), 'x1, y1, x2, y2'),
    ('boxes as fractions', each(bbox=[0.2, 0.2, 0.3, 0.4]), 'box in fractions of its image'),
    ('a box of text', first(bbox='1 1 20 20'), 'bbox that is no list of four numbers'),
    ('a box of three numbers', first(bbox=[1, 1, 20]), 'bbox that is no list of four numbers'),
    ('no area', lacks('area'), 'object without area'),
    ('an area of 0', first(area=0), 'area of zero or less', RUNS, RUNS),
    ('no iscrowd', lacks('iscrowd'), "val_.* object without iscrowd .* KeyError: 'iscrowd'|test_.*iscrowd"),
    ('crowds alone', each(iscrowd=1), 'mmdet keeps no object', ENDS, RUNS),
    ('two objects of one id', first(id=2), 'object whose id another has'),
    ('an object of no image', first(image_id=99), 'object of an image that the file lacks', RUNS, RUNS),
    ('an object of no category', first(category_id=99), 'object of a category that the file lacks'),
    ('no objects', lambda c: c.coco.update(annotations=[]), 'mmdet keeps no object', ENDS, RUNS),
    # classes
    ('a misspelt class', classes('ship', 'baot'), "metainfo.classes has 'baot' for 'boat'"),
    ('classes in another order', classes('boat', 'ship'), 'another order than .* exchange the names'),
    ('other classes', classes('cat', 'dog'), 'classes of the config are no categories'),
    ('a class twice', classes('ship', 'boat', 'ship'), 'names ship twice'),
    ('classes that are no names', classes(1, 2), 'no list of names'),
    ('categories of one name', categories('ship', 'boat', 'ship'), 'several categories with the name ship'),
    ('a category left out', categories('ship', 'boat', 'crane'), 'leaves out 1 categories .*crane', RUNS, RUNS),
    ('other classes in training', classes('boat', parts=['train']), 'its 2 classes .* are not the 1 of', ENDS, RUNS),
    ('too few outputs', setting(model__bbox_head__num_classes=1), 'bbox_head.num_classes=1, and the datasets have 2'),
    # settings
    ('another range for the weights', setting(model__backbone__init_cfg=PRETRAINED, model__data_preprocessor=CAFFE),
     'pvt://tiny was trained with RGB', ENDS, RUNS),
    ('no data preprocessor', setting(model__data_preprocessor=None), 'set model.data_preprocessor.type=Det'),
    ('a warm-up longer than the run', setting(param_scheduler=[dict(type='LinearLR', by_epoch=False, end=500)]),
     'WARNING: the run ends inside its own warm-up: .* 4 epochs of 1 iterations', RUNS, RUNS),
    ('an epoch of no batch', setting(train_dataloader__drop_last=True, train_dataloader__batch_size=5),
     'an epoch has no iteration', ENDS, RUNS),
    ('a class without an object', lambda c: c.coco.update(annotations=c.coco['annotations'][::2]),
     'no object of 1 of the 2 classes: ship', RUNS, RUNS),
    ('validation on the images that are trained on', lambda c: None, 'are trained on as well', RUNS, RUNS),
    ('a schedule longer than the run', setting(train_cfg__max_epochs=2), 'WARNING: .* lowers .* epoch 4', RUNS, RUNS),
    ('objects that become too small', lambda c: [s.update(scale=(8, 8)) for s in c.cfg.train_dataloader.dataset.pipeline
     if s.type == 'Resize'], 'WARNING: .* makes 12 of 12 objects smaller than 4 px', 'too small: at least 32', RUNS),
    ('a misspelt key', option('load_form', 'a.pth'), 'the config has no load_form; is it load_from'),
    ('a key that nothing takes', option('foo.bar'), 'has no foo, and nothing takes it'),
    ('an argument that PVT lacks', option('model.backbone.nonsense'), 'has no model.backbone.nonsense, and nothing'),
    ('a policy that is none', option('bad_data', 'maybe'), "bad_data='maybe' is unknown"),
    ('no such pretrained weights', setting(model__backbone__init_cfg=dict(PRETRAINED, checkpoint='nowhere.pth')),
     'nowhere.pth does not exist', ENDS, RUNS),
    ('no such checkpoint', setting(load_from='nowhere.pth'), 'checkpoint nowhere.pth does not exist'),
    ('a work dir that is not writable', setting(work_dir='/proc/runs'), '/proc cannot be written to'),
    ('a backend without its package', setting(visualizer__vis_backends=[dict(type='ClearMLVisBackend')]),
     'pip install clearml'),
    ('a disk that is full', setting(default_hooks__checkpoint__interval=1, train_cfg__max_epochs=10**9),
     'keeps 1000000000 checkpoints', ENDS, RUNS),
]  # fmt: skip
INSTANCES = [
    ('boxes without masks', lacks('segmentation'), 'object without a mask.*retinanet'),
    ('a polygon with NaN', first(segmentation=[[float('nan'), 1, 9, 1, 9, 9]]), 'polygon with NaN'),
    ('a polygon with null', first(segmentation=[[None, 1, 9, 1, 9, 9]]), 'polygon with NaN or null'),
    ('a polygon of two points', first(segmentation=[[1, 1, 9, 9]]), 'less than six values', RUNS, RUNS),
    ('polygons as fractions', each(segmentation=[[0.1, 0.1, 0.5, 0.1, 0.5, 0.5]]),
     'object whose polygons are in fractions'),
    ('a part of two points', first(segmentation=[[1, 1, 9, 1, 9, 9], [1, 1, 2, 2]]), 'drops that part', RUNS, RUNS),
    ('a mask of text', first(segmentation='polygon'), 'segmentation that is no list of polygons'),
    ('an RLE of another size', first(segmentation=dict(FULL_RLE, size=[9, 9])), 'RLE of another size|RLE whose counts'),
    ('an RLE without size', first(segmentation=dict(counts=[0, 9])), 'RLE without usable size'),
    ('an RLE that is too short', first(segmentation=dict(FULL_RLE, counts=[0, 9])), 'RLE whose counts do not fill'),
    ('an RLE that is not drawn', lambda c: (first(segmentation=FULL_RLE)(c), [s.update(poly2mask=False)
     for s in c.cfg.train_dataloader.dataset.pipeline if s.type == 'LoadAnnotations']), 'poly2mask=True', ENDS, RUNS),
    ('80 outputs by default', lambda c: c.cfg.model.roi_head.mask_head.pop('num_classes'), 'classes=80 by default'),
    ('two heads at odds', setting(model__roi_head__mask_head__num_classes=3), 'mask_head.num_classes=3, and the data'),
    ('a negative box', first(bbox=[30, 30, -20, -20]), 'box of negative width'),
    ('classes in another order', classes('boat', 'ship'), 'another order than'),
]  # fmt: skip
SEMANTIC = [
    ('masks of 0 and 255', maps([0, 255]), 'hold 0 and 255 alone'),
    ('only ignored pixels', maps([255]), 'hold 255 alone'),
    ('a value without a class', maps([0, 1, 7]), 'holds the value 7, and the 3 classes are 0 to 2'),
    ('labels from 1', maps([1, 2, 3]), 'holds the value 3, .*reduce_zero_label=True if 0 is no class'),
    ('labels from 0, reduced', of_datasets(reduce_zero_label=True), 'WARNING: .* car is never seen', RUNS, RUNS),
    ('a class that no map holds', maps([0, 1]), 'not in these maps: car', RUNS, RUNS),
    ('maps of 16 bits', maps([0, 1, 300], np.uint16), 'holds values from 0 to 300'),
    ('a map of three channels', first_map((SIDE, SIDE, 3)), 'has 3 channels'),
    ('a map of another size', first_map((SIDE // 2, SIDE)), r'is 32x64 px|of another size than its image'),
    ('a map that is no image', content('maps/0.png', b'text'), 'cannot be decoded'),
    ('half of a map', cut('maps/0.png'), 'cannot be decoded'),
    ('a map is missing', removed('maps/0.png'), '1 of the 4 images have no label map'),
    ('no maps', removed('maps'), 'the folder .*maps is missing or empty'),
    ('a map without an image', removed('images/0.jpg'), 'label map without an image', RUNS, RUNS),
    ('images of another suffix', of_datasets(img_suffix='.png'), "ends with img_suffix='.png'; .* 4 .jpg files"),
    ('maps of another suffix', of_datasets(seg_map_suffix='_map.png'), 'have no label map with seg_map_suffix'),
    ('a list that names more', lambda c: (content('train.txt', b'0\n9\n')(c), of_datasets(ann_file='train.txt')(c)),
     '1 of the 2 images of .*train.txt are missing'),
    ('reduce_zero_label at odds', lambda c: [c.cfg[f'{part}_dataloader'].dataset.pipeline[1].update(
     reduce_zero_label=True) for part in ('train', 'val', 'test')], 'reduce_zero_label is True in LoadAnnotations'),
    ('too many outputs', setting(model__decode_head__num_classes=4), 'num_classes=4, and the datasets have 3'),
    ('classes that a dataset lacks', lambda c: (of_datasets(type='ADE20KDataset')(c), classes('kraken')(c)),
     'cannot be built: .*not a subset'),
    ('an image of 0 bytes', content('images/0.jpg', b''), 'image file of 0 bytes', 'cannot be read', 'cannot be read'),
    ('an image of another size', saved('0.jpg', size=(32, 32)), r'of another size than its image|is 64x64 px'),
    ('another range for the weights', setting(model__pretrained='pvt://tiny', model__data_preprocessor__std=[1] * 3),
     'pvt://tiny was trained with RGB', ENDS, RUNS),
]  # fmt: skip
ROWS = [
    Row(system, *row)
    for system, rows in dict(detector=DETECTOR, instances=INSTANCES, semantic=SEMANTIC).items()
    for row in rows
]


def look(case: Case, *parts: str) -> tuple[list[str], str]:
    """What the checks of a run print, and the error that ends it: as tools/train.py and tools/test.py call them."""
    lines, cfg, training = [], case.cfg, 'train_dataloader' in parts
    try:
        check_options(cfg, case.options)
        cfg.merge_from_dict(case.options)
        check_data(cfg, *parts)
        check_agreement(cfg, *parts, log=lines.append)
        if training:
            check_training(cfg, log=lines.append)
            check_pretrained(cfg.model)
        else:
            check_testing(cfg)
        check_checkpoint(cfg.get('load_from'))
    except SettingError as error:
        assert len(str(error).splitlines()) <= 3
        return lines, str(error)
    return lines, ''


def run(case: Case, system: str, part: str) -> None:
    """Loads every sample of a dataset as the runner does, and runs a step on them."""
    network = model(system).train(part == 'train_dataloader')
    with DefaultScope.overwrite_default_scope(case.cfg.default_scope), contextlib.redirect_stdout(io.StringIO()):
        dataset = DATASETS.build(case.cfg[part].dataset)
    guard_loading(dataset, Notes('train_dataloader', 0))
    for i in range(len(dataset)) if part == 'test_dataloader' else [slice(None)]:
        samples = [dataset[i]] if isinstance(i, int) else [dataset[j] for j in range(len(dataset))]
        data = network.data_preprocessor(pseudo_collate(samples), network.training)
        if network.training:
            loss, _ = network.parse_losses(network(**data, mode='loss'))
            assert torch.isfinite(loss)
        else:
            with torch.no_grad():
                assert network(**data, mode='predict')


@pytest.mark.parametrize('row', ROWS, ids=lambda row: f'{row.system}: {row.input}')
def test_no_bad_input_is_silent(row, tmp_path):
    case = Case(row.system, tmp_path)
    row.fault(case)
    case.write()
    for parts, outcome in ((('train_dataloader', 'val_dataloader'), row.training), (('test_dataloader',), row.testing)):
        lines, error = look(case, *parts)
        if outcome == ENDS:
            assert re.search(row.says, error), (error, lines)
            continue
        assert not error
        if parts[0] == 'train_dataloader' and not any(re.search(row.says, line) for line in lines):
            findings = find_faults(case.cfg, 'all', lines.append)
            lines += [f'{kind.what}: {kind.effect}' for kind in findings.numbers]
            assert any(re.search(row.says, line) for line in lines), lines
        with contextlib.nullcontext() if outcome == RUNS else pytest.raises(Exception, match=outcome):
            run(case, row.system, parts[0])


def test_the_table_covers_three_systems_with_sixty_inputs():
    assert len(ROWS) >= 60 and {row.system for row in ROWS} == set(CONFIGS)


@pytest.mark.parametrize('system', CONFIGS)
def test_a_good_input_passes_without_a_fault(system, tmp_path):
    """Without this, a row could end for another reason than its fault."""
    case = Case(system, tmp_path)
    for parts in (('train_dataloader', 'val_dataloader'), ('test_dataloader',)):
        lines, error = look(case, *parts)
        warnings = [line for line in lines if 'WARNING' in line]
        assert not error and all('are trained on as well' in line for line in warnings)  # as they are, here
        run(case, system, parts[0])
    assert not find_faults(case.cfg, 'all', lines.append).numbers
