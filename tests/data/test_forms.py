"""People's own data: what ``pvt-mm init`` makes of each form, against the scenes that the form was written from."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, METRICS, MODELS, init_default_scope
from PIL import Image as Pillow

from pvt_mm.commands import main
from pvt_mm.commands.init import TEMPLATES
from pvt_mm.data.agreement import check_agreement
from pvt_mm.data.forms.common import image_size, split_of
from pvt_mm.data.forms.writing import decode
from pvt_mm.models.archs import ARCHS
from tests.common import THIN
from tests.forms import DIGITS, FORMS, Scene, as_coco, read_scenes, write_coco, write_labelme, write_voc, write_yolo


@pytest.fixture(scope='module')
def scenes(digits) -> list[Scene]:
    return read_scenes(digits)


@pytest.fixture
def init(monkeypatch, tmp_path, capsys):
    """Runs ``pvt-mm init`` on ``tmp_path/data``; returns the config and what was printed."""
    monkeypatch.chdir(tmp_path)

    def run(task: str, *flags: str) -> tuple[Config, str]:
        monkeypatch.setattr('sys.argv', ['pvt-mm', 'init', 'data', '--task', task, '--out', f'{task}.py', *flags])
        (tmp_path / f'{task}.py').unlink(missing_ok=True)
        main()
        return Config.fromfile(f'{task}.py'), capsys.readouterr().out

    return run


@pytest.fixture
def refusal(init):
    """The line with which ``pvt-mm init`` ends."""

    def run(task: str, *flags: str) -> str:
        with pytest.raises(SystemExit) as ended:
            init(task, *flags)
        return str(ended.value)

    return run


def annotations(cfg: Config, part: str) -> dict[str, list[dict]]:
    """The annotations of the file that a config names, by the name of the image, with the name of the class."""
    dataset = cfg[part].dataset
    content = json.loads(Path(dataset.data_root, dataset.ann_file).read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    assert tuple(names.values()) == tuple(dataset.metainfo.classes)
    found = {}
    for image in content['images']:
        path = Path(dataset.data_root, dataset.data_prefix.img, image['file_name'])
        assert cv2.imread(str(path)).shape[:2] == (image['height'], image['width'])
        items = [item for item in content['annotations'] if item['image_id'] == image['id']]
        found[path.stem] = [dict(item, name=names[item['category_id']]) for item in items]
    return found


def fingerprints(root: Path) -> dict[str, str]:
    files = [path for path in root.rglob('*') if path.is_file() and 'pvt_mm' not in path.parts]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


BOXES = dict(
    coco=write_coco,
    voc=write_voc,
    yolo=write_yolo,
    labelme=lambda root, scenes: write_labelme(root, scenes, polygons=False),
)


@pytest.mark.parametrize('form', BOXES)
def test_boxes_classes_and_splits_are_those_of_the_form(init, scenes, tmp_path, form):
    BOXES[form](tmp_path / 'data', scenes)
    before = fingerprints(tmp_path / 'data')
    cfg, printed = init('detection')
    assert fingerprints(tmp_path / 'data') == before  # the originals stay as they are
    check_agreement(cfg, 'train_dataloader', 'val_dataloader')
    assert cfg.model.bbox_head.num_classes == 10
    train, val = annotations(cfg, 'train_dataloader'), annotations(cfg, 'val_dataloader')
    if form == 'labelme':
        assert (len(train), len(val)) == (22, 2) and '2 of 24 images validate, drawn with seed 0' in printed
    else:
        assert set(val) == {scene.name for scene in scenes if scene.split == 'val'}
    assert set(train) | set(val) == {scene.name for scene in scenes} and not set(train) & set(val)
    for scene in scenes:
        items = {**train, **val}[scene.name]
        assert [item['name'] for item in items] == [name for name, _, _ in scene.objects]
        boxes = np.array([box for _, box, _ in scene.objects])
        np.testing.assert_allclose([item['bbox'] for item in items], boxes, rtol=0, atol=1e-9)
    assert (tmp_path / 'data/pvt_mm').exists() == (form != 'coco')  # mmdet reads COCO's files as they are


@pytest.mark.parametrize('form', ['yolo', 'labelme'])
def test_masks_are_those_of_the_form(init, scenes, tmp_path, form):
    if form == 'yolo':  # a line holds one polygon
        write_yolo(tmp_path / 'data', scenes, polygons=True)
    else:
        write_labelme(tmp_path / 'data', scenes)
    cfg, _ = init('instances')
    check_agreement(cfg, 'train_dataloader', 'val_dataloader')
    heads = cfg.model.roi_head
    assert heads.bbox_head.num_classes == heads.mask_head.num_classes == 10
    found = {**annotations(cfg, 'train_dataloader'), **annotations(cfg, 'val_dataloader')}
    for scene in scenes:
        for (name, _, polygons), item in zip(scene.objects, found[scene.name], strict=True):
            expected = decode([max(polygons, key=len)] if form == 'yolo' else polygons, *scene.size)
            mask = decode(item['segmentation'], *scene.size)
            assert item['name'] == name and (mask & expected).sum() / (mask | expected).sum() > 0.99
            x, y, w, h = item['bbox']
            outside = mask.copy()
            outside[int(y) : int(np.ceil(y + h)), int(x) : int(np.ceil(x + w))] = False
            assert not outside.any() and item['area'] == pytest.approx(mask.sum(), rel=0.2)


def guess(scene: Scene) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a fixed model finds in a scene: boxes that are a little off, and some wrong labels; the same each time."""
    rng = np.random.default_rng(sum(scene.name.encode()))
    boxes = np.array([box for _, box, _ in scene.objects]) + rng.normal(0, 2, (len(scene.objects), 4))
    boxes[:, 2:] += boxes[:, :2]
    labels = [DIGITS.index(name) if rng.random() < 0.8 else rng.integers(10) for name, _, _ in scene.objects]
    return torch.tensor(boxes), torch.tensor(labels), torch.tensor(rng.random(len(labels)))


def average_precision(evaluator: dict, ids: dict[str, int], scenes: list[Scene]) -> dict:
    metric = METRICS.build(evaluator)
    metric.dataset_meta = dict(classes=DIGITS)
    for scene in scenes:
        found = dict(zip(('bboxes', 'labels', 'scores'), guess(scene)))
        metric.process({}, [dict(img_id=ids[scene.name], ori_shape=scene.size, pred_instances=found)])
    return metric.evaluate(len(scenes))


@pytest.mark.parametrize('form', BOXES)
def test_a_fixed_model_has_the_ap_of_the_original(init, scenes, tmp_path, form):
    BOXES[form](tmp_path / 'data', scenes)
    cfg, _ = init('detection', '--val-fraction', '0.4')
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    ids = {Path(item['img_path']).stem: item['img_id'] for item in map(dataset.get_data_info, range(len(dataset)))}
    chosen = [scene for scene in scenes if scene.name in ids]
    (tmp_path / 'original.json').write_text(json.dumps(as_coco(chosen)))
    original = dict(cfg.val_evaluator, ann_file='original.json')
    numbers = {scene.name: number for number, scene in enumerate(chosen, 1)}
    expected = average_precision(original, numbers, chosen)
    assert 0.2 < expected['coco/bbox_mAP'] < 0.9
    assert average_precision(cfg.val_evaluator, ids, chosen) == expected


def test_label_maps_have_the_miou_of_the_original(init, scenes, tmp_path):
    FORMS['masks'](tmp_path / 'data', scenes)
    cfg, _ = init('semantic', '--val-fraction', '0.4')
    check_agreement(cfg, 'train_dataloader', 'val_dataloader')
    assert cfg.model.decode_head.num_classes == 11 and not (tmp_path / 'data/pvt_mm/maps').exists()
    assert miou(cfg, scenes) == pytest.approx(expected_miou(cfg, scenes), abs=0.01)


def guess_map(scene: Scene) -> np.ndarray:
    """What a fixed segmenter finds: the truth, moved by 2 px, without void."""
    return np.roll(np.where(scene.labels == 255, 0, scene.labels), 2, axis=1)


def miou(cfg: Config, scenes: list[Scene]) -> float:
    """By the config's dataset, pipeline and metric, without a change of the size."""
    init_default_scope('mmseg')
    steps = [step for step in cfg.val_dataloader.dataset.pipeline if 'Resize' not in step.type]
    dataset = DATASETS.build({**cfg.val_dataloader.dataset, 'pipeline': steps})
    metric, names = METRICS.build(cfg.val_evaluator), {scene.name: scene for scene in scenes}
    metric.dataset_meta = dataset.metainfo
    for item in map(dataset.__getitem__, range(len(dataset))):
        sample = item['data_samples']
        found = torch.from_numpy(guess_map(names[Path(sample.img_path).stem])).long()[None]
        metric.process({}, [dict(pred_sem_seg=dict(data=found), gt_sem_seg=dict(data=sample.gt_sem_seg.data))])
    return metric.evaluate(len(dataset))['mIoU']


def expected_miou(cfg: Config, scenes: list[Scene]) -> float:
    """In percent, computed here."""
    lines = Path('data/pvt_mm/val.txt').read_text().split()
    chosen = [scene for scene in scenes if scene.name in lines]
    assert len(chosen) == len(lines) == 10
    truth, found = (np.stack(maps) for maps in ([s.labels for s in chosen], [guess_map(s) for s in chosen]))
    truth, found = truth[truth != 255], found[truth != 255]
    ious = [((truth == i) & (found == i)).sum() / ((truth == i) | (found == i)).sum() for i in range(11)]
    return 100 * np.mean(ious)


@pytest.mark.parametrize('form', ['coco', 'labelme'])
def test_label_maps_of_polygons_are_drawn(init, scenes, tmp_path, form):
    FORMS[form](tmp_path / 'data', scenes)
    cfg, printed = init('semantic')
    assert '24 label maps were written' in printed
    check_agreement(cfg, 'train_dataloader', 'val_dataloader')
    assert tuple(cfg.val_dataloader.dataset.metainfo.classes) == ('background', *DIGITS)
    for scene in scenes:
        (path,) = (tmp_path / 'data/pvt_mm/maps').rglob(f'{scene.name}.jpg.png')
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        expected = np.zeros(scene.size, bool)
        for name, _, polygons in scene.objects:
            mask = decode(polygons, *scene.size)
            expected |= mask
            assert (labels[mask] == DIGITS.index(name) + 1).mean() > 0.8  # others overlap a little
        np.testing.assert_array_equal(labels > 0, expected)


def test_the_drawn_split_is_of_the_seed(init, scenes, tmp_path):
    write_labelme(tmp_path / 'data', scenes[:10])

    def val(*flags: str) -> set[str]:
        cfg, printed = init('detection', *flags)
        return set(annotations(cfg, 'val_dataloader')), printed

    first, _ = val('--val-fraction', '0.3')
    again, printed = val('--val-fraction', '0.3')
    assert len(first) == 3 and first == again and 'was replaced' not in printed
    other, printed = val('--val-fraction', '0.3', '--seed', '1')
    assert first != other and printed.count('had another content and was replaced') == 2


def test_one_coco_file_is_split_and_images_may_lie_anywhere(init, scenes, tmp_path):
    content = as_coco(scenes[:4])
    content['categories'].insert(0, dict(id=99, name='things'))  # Roboflow's supercategory
    for number, item in enumerate(content['annotations']):
        item.update(score=number, bbox=[1, 2, 3, 4])
    write_coco(tmp_path / 'data', scenes[:4])
    (tmp_path / 'data/annotations/train.json').rename(tmp_path / 'data/everything.json')
    (tmp_path / 'data/everything.json').write_text(json.dumps(content))
    (tmp_path / 'data/annotations/val.json').unlink()
    cfg, printed = init('detection')
    assert 'categories without an object are left out: things' in printed
    found = {**annotations(cfg, 'train_dataloader'), **annotations(cfg, 'val_dataloader')}
    assert sorted(found) == sorted(scene.name for scene in scenes[:4])
    items = [item for items in found.values() for item in items]
    assert sorted(item['score'] for item in items) == list(range(len(content['annotations'])))  # all that it said


@pytest.mark.parametrize(
    'form, file, old, new, message',
    [
        ('voc', 'Annotations/{}.xml', '</object>', '</objekt>', '{}.xml, line 1: broken XML'),
        ('voc', 'Annotations/{}.xml', '<xmin>', '<xmin>9', '{}.xml: object 1: the box'),
        ('voc', 'Annotations/{}.xml', '<name>', '<nome/><name/><!--', '{}.xml, line 1'),
        ('voc', 'Annotations/{}.xml', '<width>96', '<width>97', '{}.xml: its size is 97x96'),
        ('voc', 'ImageSets/Main/train.txt', '{}', 'lost', 'train.txt, line 2: lost has no XML file'),
        ('yolo', 'labels/train/{}.txt', ' 0.', ' 7.', '{}.txt, line 1: a coordinate is outside of 0 to 1'),
        ('yolo', 'labels/train/{}.txt', ' 0.', ' x', '{}.txt, line 1: could not convert string to float'),
        ('yolo', 'labels/train/{}.txt', ' 0.', ' 0.5 0.', '{}.txt, line 1: 6 numbers are neither a box'),
        ('yolo', 'data.yaml', "  9: '9'", '', 'the class 9 is none of 0 to 8'),
        ('yolo', 'data.yaml', 'path:', 'path: [', 'data.yaml, line 2: broken YAML'),
        ('labelme', '{}.json', '{"version"', '{"version', '{}.json, line 1: broken JSON'),
        ('labelme', '{}.json', '"points": [[', '"points": [["a", ', '{}.json: shape 0 (from 0)'),
        ('labelme', '{}.json', '{}.jpg', 'lost.jpg', '{}.json: its image data/lost.jpg is missing'),
        ('labelme', '{}.json', '"imageWidth": 96', '"imageWidth": 95', '{}.json: its size is 95x96'),
        ('coco', 'annotations/train.json', '"category_id": ', '"category_id": 5', 'train.json: annotation 0 (from 0)'),
        ('coco', 'annotations/train.json', '{}.jpg', 'lost.jpg', '1 of its 2 images are not in'),
        ('coco', 'annotations/train.json', '{"images"', '{images', 'train.json, line 1: broken JSON'),
        ('masks', 'classes.txt', '8\n9', '', 'and 9 classes are named'),
    ],
)
def test_what_is_broken_is_named(refusal, scenes, tmp_path, form, file, old, new, message):
    FORMS[form](tmp_path / 'data', scenes[14:])
    name = scenes[15].name
    file, old, message = (text.replace('{}', name) for text in (file, old, message))
    text = (tmp_path / 'data' / file).read_text()
    assert old in text
    (tmp_path / 'data' / file).write_text(text.replace(old, new, 1))
    assert message in refusal('semantic' if form == 'masks' else 'detection')
    assert not (tmp_path / 'data/pvt_mm').exists()


def test_what_is_not_known_is_named_with_the_forms_that_are(refusal, scenes, tmp_path):
    (tmp_path / 'data').mkdir()
    assert 'data has no files, and no form that is known for --task detection: COCO JSON' in refusal('detection')
    (tmp_path / 'data/a.csv').write_text('1,2')
    assert 'data has 1 .csv, and no form' in refusal('semantic')
    FORMS['masks'](tmp_path / 'data', scenes[:2])
    assert 'use --task semantic' in refusal('detection')
    shutil.rmtree(tmp_path / 'data')
    FORMS['voc'](tmp_path / 'data', scenes)
    assert 'have a box and no mask (first: JPEGImages/' in refusal('instances')


def test_objects_that_voc_calls_difficult_are_crowds_and_boxes_may_count_from_0(init, scenes, tmp_path):
    write_voc(tmp_path / 'data', scenes)
    path = tmp_path / f'data/Annotations/{scenes[0].name}.xml'
    text = path.read_text().replace('<difficult>0', '<difficult>1', 1)
    path.write_text(text)
    items = annotations(init('detection')[0], 'train_dataloader')[scenes[0].name]
    assert [item['iscrowd'] for item in items] == [1] + [0] * (len(items) - 1)
    x, y, width, height = items[0]['bbox']
    path.write_text(text.replace(f'<xmin>{x + 1:.0f}', '<xmin>0', 1))
    cfg, printed = init('detection')
    assert 'a box begins at 0: pixels are counted from 0' in printed
    item = annotations(cfg, 'train_dataloader')[scenes[0].name][0]
    assert item['bbox'] == [0, y + 1, x + width, height - 1]


def test_masks_of_0_and_255_become_0_and_1(init, scenes, tmp_path):
    FORMS['masks'](tmp_path / 'data', scenes)
    (tmp_path / 'data/classes.txt').unlink()
    for path in (tmp_path / 'data/masks').iterdir():
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.uint8(255) * (labels > 0))
    before = fingerprints(tmp_path / 'data')
    cfg, printed = init('semantic')
    assert 'the masks hold 0 and 255 alone: 255 is the second class' in printed
    assert cfg.val_dataloader.dataset.metainfo.classes == ('background', 'foreground')
    check_agreement(cfg, 'train_dataloader', 'val_dataloader')
    assert fingerprints(tmp_path / 'data') == before
    for scene in scenes:
        labels = cv2.imread(str(tmp_path / f'data/pvt_mm/maps/{scene.name}.jpg.png'), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(labels, scene.labels > 0)


@pytest.mark.parametrize(
    'names, values, classes, reduce_zero_label',
    [
        (['a', 'b'], [1, 2, 255], ('background', 'a', 'b'), False),  # a name for each value but 0
        (['background', 'a'], [1, 2, 255], ('background', 'a'), True),  # likewise, and 0 is not the background
        (['a', 'b', 'c'], [1, 2], ('a', 'b', 'c'), False),
        ([], [5, 9], ('class_0', 'class_5', 'class_9'), False),
    ],
)
def test_values_of_masks_are_named(init, scenes, tmp_path, names, values, classes, reduce_zero_label):
    FORMS['masks'](tmp_path / 'data', scenes[:3])
    (tmp_path / 'data/classes.txt').write_text('\n'.join(names))
    for path in (tmp_path / 'data/masks').iterdir():
        labels = np.zeros(scenes[0].size, np.uint8)
        labels[: len(values)] = np.array(values)[:, None]
        cv2.imwrite(str(path), labels)
    cfg, _ = init('semantic')
    dataset = cfg.val_dataloader.dataset
    assert (dataset.metainfo.classes, dataset.reduce_zero_label) == (classes, reduce_zero_label)
    check_agreement(cfg, 'train_dataloader', 'val_dataloader')
    init_default_scope('mmseg')
    sample = DATASETS.build({**dataset, 'pipeline': [dict(type='LoadAnnotations'), dict(type='PackSegInputs')]})[0]
    rows = sample['data_samples'].gt_sem_seg.data[0, : len(values), 0].tolist()
    assert rows == [
        classes.index(f'class_{v}') if not names else v - reduce_zero_label if v < 255 else v for v in values
    ]


def test_turned_images_count_as_they_are_decoded(init, refusal, scenes, tmp_path):
    write_yolo(tmp_path / 'data', scenes[:3])
    path = tmp_path / f'data/images/train/{scenes[0].name}.jpg'
    exif = Pillow.Exif()
    exif[0x0112] = 6  # a quarter turn
    with Pillow.open(path) as image:
        image.resize((80, 40)).save(path, exif=exif)
    assert image_size(path) == cv2.imread(str(path)).shape[1::-1] == (40, 80)
    found = {}
    cfg, _ = init('detection')
    for part in ('train_dataloader', 'val_dataloader'):
        found.update(annotations(cfg, part))
    x, y, width, height = scenes[0].objects[0][1]
    np.testing.assert_allclose(
        found[scenes[0].name][0]['bbox'], [x * 40 / 96, y * 80 / 96, width * 40 / 96, height * 80 / 96]
    )
    voc = Path(tmp_path / 'data/images/train' / f'{scenes[0].name}.xml')
    voc.write_text('<annotation><size><width>80</width><height>40</height></size></annotation>')
    assert 'its size is 80x40, and' in (line := refusal('detection')) and 'decodes to 40x80 px (turned by' in line


def test_data_yaml_may_lie_deeper_and_is_text_as_are_labels_with_a_byte_order_mark(init, scenes, tmp_path):
    write_yolo(tmp_path / 'data/boats.v1', scenes[14:18])
    path = tmp_path / 'data/boats.v1/data.yaml'
    names = ['no', '1e3', *DIGITS[2:]]
    path.write_text('names:\n' + ''.join(f"  '{number}': {name}\n" for number, name in enumerate(names)), 'utf-8-sig')
    for path in (tmp_path / 'data').rglob('*.txt'):
        path.write_text(path.read_text().replace('\n', '\r\n'), 'utf-8-sig')
    cfg, _ = init('detection')
    assert list(cfg.val_dataloader.dataset.metainfo.classes) == names
    assert len(annotations(cfg, 'train_dataloader')[scenes[14].name]) == len(scenes[14].objects)


def test_text_in_another_encoding_is_named(refusal, scenes, tmp_path):
    write_yolo(tmp_path / 'data', scenes[14:18])
    (tmp_path / 'data/data.yaml').unlink()
    (tmp_path / 'data/classes.txt').write_bytes('Bär'.encode('latin-1'))
    assert 'data/classes.txt: no text in UTF-8' in refusal('detection')


def test_folders_that_are_links_are_read(init, scenes, tmp_path):
    write_yolo(tmp_path / 'data', scenes[14:18])
    for name in ('images', 'labels'):
        (tmp_path / 'data' / name).rename(tmp_path / f'far_{name}')
        (tmp_path / 'data' / name).symlink_to(tmp_path / f'far_{name}')
    found = annotations(init('detection')[0], 'train_dataloader')
    assert len(found[scenes[14].name]) == len(scenes[14].objects)


def test_voc_lists_may_lie_deeper_and_an_xml_file_has_the_nearest_image_of_its_name(init, scenes, tmp_path):
    write_voc(tmp_path / 'data/VOCdevkit/VOC2012', scenes)
    for path in (tmp_path / 'data').rglob('Main/*.txt'):
        path.write_text(path.read_text() + '\r\n\r\n')
    cfg, printed = init('detection')
    assert set(annotations(cfg, 'val_dataloader')) == {scene.name for scene in scenes if scene.split == 'val'}
    assert 'no split found' not in printed
    shutil.rmtree(tmp_path / 'data')
    for split, scene in zip(('train', 'val'), scenes[:2]):
        write_voc(tmp_path / 'data' / split, [replace(scene, name='a')])
        shutil.rmtree(tmp_path / 'data' / split / 'ImageSets')
    cfg, _ = init('detection')
    for part, scene in zip(('train_dataloader', 'val_dataloader'), scenes):
        assert [item['name'] for item in annotations(cfg, part)['a']] == [name for name, _, _ in scene.objects]


@pytest.mark.parametrize('place', ['C:\\\\me\\\\{}.jpg', '..\\\\..\\\\elsewhere\\\\{}.jpg', '/me/{}.jpg'])
def test_images_of_labelme_are_found_where_the_path_leads_or_beside(init, scenes, tmp_path, place):
    write_labelme(tmp_path / 'data/a', scenes[14:18])
    for scene in scenes[14:18]:
        path = tmp_path / f'data/a/{scene.name}.json'
        path.write_text(path.read_text().replace(f'{scene.name}.jpg', place.format(scene.name)))
        if 'elsewhere' in place:
            (tmp_path / 'elsewhere').mkdir(exist_ok=True)
            path.with_suffix('.jpg').rename(tmp_path / f'elsewhere/{scene.name}.jpg')
    cfg, _ = init('detection')
    found = {**annotations(cfg, 'train_dataloader'), **annotations(cfg, 'val_dataloader')}
    assert set(found) == {scene.name for scene in scenes[14:18]}


def test_classes_of_one_name_and_masks_that_cannot_be_drawn_are_named(refusal, scenes, tmp_path):
    write_yolo(tmp_path / 'data', scenes[14:18])
    (tmp_path / 'data/data.yaml').write_text(f'names: [{", ".join(["a", *DIGITS[:8], "a"])}]')
    assert 'data (YOLO txt) has several classes with the name a' in refusal('detection')
    shutil.rmtree(tmp_path / 'data')
    write_coco(tmp_path / 'data', scenes[14:18])
    path = tmp_path / 'data/annotations/train.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['segmentation'] = [[1, 1, 2, 2]]
    path.write_text(json.dumps(content))
    assert f'train/{scenes[14].name}.jpg: the mask of an object (' in refusal('semantic')


@pytest.mark.parametrize('task', ['detection', 'semantic'])
def test_coco_without_area_and_iscrowd_gets_that_of_the_box_and_0(init, scenes, tmp_path, task):
    write_coco(tmp_path / 'data', scenes[14:18])
    for path in (tmp_path / 'data').rglob('*.json'):
        content = json.loads(path.read_text())
        for item in content['annotations']:
            del item['area'], item['iscrowd']
        path.write_text(json.dumps(content))
    cfg, printed = init(task)
    assert 'annotations lack area or iscrowd, which mmdet needs: that of the box and 0 are written' in printed
    check_agreement(cfg, 'train_dataloader', 'val_dataloader')


def test_names_of_masks_may_end_with_what_they_are(init, scenes, tmp_path):
    FORMS['masks'](tmp_path / 'data/VOCdevkit', scenes[14:18])
    for path in (tmp_path / 'data/VOCdevkit/masks').iterdir():
        path.rename(path.with_stem(f'{path.stem}_mask'))
    (tmp_path / 'data/VOCdevkit/ImageSets/Segmentation').mkdir(parents=True)
    for split in ('train', 'val'):
        names = [scene.name for scene in scenes[14:18] if scene.split == split]
        (tmp_path / f'data/VOCdevkit/ImageSets/Segmentation/{split}.txt').write_text('\n'.join(names))
    cfg, printed = init('semantic')
    assert 'PNG masks: 4 images' in printed and 'no split found' not in printed
    check_agreement(cfg, 'train_dataloader', 'val_dataloader')
    for scene in scenes[14:18]:
        (path,) = (tmp_path / 'data/pvt_mm/maps').rglob(f'{scene.name}.jpg.png')
        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), scene.labels)


def test_splits_are_told_by_words_in_paths():
    told = {path: split_of(path) for path in ('a/valid/b', 'train2017', 'instances_val2017.json', 'x_test', 'Training')}
    assert list(told.values()) == ['val', 'train', 'val', 'test', 'train']
    assert not any(map(split_of, ('trainval.txt', 'values/a', 'latest', 'strain/b', '')))


@pytest.mark.parametrize('template', ['detector', 'instances', 'semantic'])
@pytest.mark.parametrize('channels', [1, 4])
def test_other_channels_train_a_step_and_are_tested(scenes, tmp_path, monkeypatch, template, channels):
    """Grey images, and files of four bands."""
    form, text = ('masks' if template == 'semantic' else 'coco'), ''
    FORMS[form](tmp_path / 'data', scenes[14:18])
    for path in (tmp_path / 'data').rglob('*.jpg'):
        image = cv2.imread(str(path))
        bands = image[..., 0] if channels == 1 else np.dstack([image, image[..., :1]])
        cv2.imwrite(str(path.with_suffix('.png')), bands)
        path.unlink()
    for path in (tmp_path / 'data').rglob('*.json'):
        path.write_text(path.read_text().replace('.jpg', '.png'))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(ARCHS, 'small', THIN)
    task = {value: key for key, value in TEMPLATES.items()}[template]
    monkeypatch.setattr('sys.argv', ['pvt-mm', 'init', 'data', '--task', task, '--out', 'a.py'])
    main()
    text = Path('a.py').read_text().replace('\nchannels = 3\n', f'\nchannels = {channels}\n')
    Path('a.py').write_text(text.replace("weights = 'pvt://small'", 'weights = None'))
    cfg = Config.fromfile('a.py')
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    batch = pseudo_collate([dataset[0], dataset[1]])
    assert batch['inputs'][0].shape[0] == channels
    model = MODELS.build(cfg.model)
    data = model.data_preprocessor(batch, training=True)
    assert data['inputs'].shape[:2] == (2, channels)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    assert torch.isfinite(loss) and model.backbone.patch_embed1.proj.weight.grad.shape[1] == channels
    assert len(model.val_step(pseudo_collate([DATASETS.build(cfg.val_dataloader.dataset)[0]]))) == 1
