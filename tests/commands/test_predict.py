import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from pycocotools import mask as rle

from pvt_mm.commands import predict
from pvt_mm.commands.predict import find_meta, load_inferencer
from pvt_mm.commands.sources import find_sources
from pvt_mm.errors import CheckpointError, SettingError
from pvt_mm.weights.formats import from_published
from tests.common import ROOT


def checkpoint(config: str, path, **meta) -> str:
    """A checkpoint of a config's model with random weights."""
    cfg = Config.fromfile(ROOT / 'configs' / f'{config}.py')
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict(), meta=meta), path)
    return str(path)


@pytest.fixture
def run(command, tmp_path):
    """Predicts with a config's model on images; returns what the command exits with, and the JSON."""

    def run(config: str, *args, **meta) -> tuple[str | int | None, dict]:
        path, out = checkpoint(config, tmp_path / 'a.pth', **meta), tmp_path / 'out'
        code = command(predict, config, path, *args, '--out', out, '--device', 'cpu')
        return code, json.loads((out / 'predictions.json').read_text())

    return run


def write_video(path, num_frames: int) -> None:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), 10, (96, 64))
    for i in range(num_frames):
        video.write(np.full((64, 96, 3), 50 * i, np.uint8))
    video.release()


def test_a_detector_draws_and_writes_what_it_finds(tool, digits, tmp_path):
    path = checkpoint('retinanet/pvt_nano_digits', tmp_path / 'a.pth', dataset_meta=dict(CLASSES=tuple('abcdefghij')))
    images = digits / 'coco' / 'val2017'
    options = ('--score-thr', 0.0, '--batch', 3)
    options += ('--cfg-options', 'model.test_cfg.score_thr=0.0', 'model.test_cfg.max_per_img=3')
    done = tool('predict.py', 'retinanet/pvt_nano_digits', path, images, '--out-dir', tmp_path / 'out', *options)
    assert done.stdout.splitlines()[-1] == f'8 images: {tmp_path}/out/vis, {tmp_path}/out/predictions.json'
    found = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert found['classes'] == list('abcdefghij')
    assert [entry['file'] for entry in found['images']] == sorted(map(str, images.iterdir()))
    for entry in found['images']:
        assert (entry['width'], entry['height']) == (96, 96)
        picture = cv2.imread(str(tmp_path / 'out' / entry['picture']))
        assert picture.shape == (96, 96, 3)
        assert np.abs(picture.astype(int) - cv2.imread(entry['file'])).max() > 100  # boxes are drawn
        for found_object in entry['objects']:
            left, top, right, bottom = found_object['box']
            assert 0 <= left <= right <= 96 and 0 <= top <= bottom <= 96
            assert found_object['class'] in 'abcdefghij' and 0 < found_object['score'] < 1
        assert entry['objects']


def test_masks_are_runs_of_the_images_size_and_low_scores_are_left_out(run, digits):
    image = digits / 'coco' / 'val2017' / '000000000001.jpg'
    _, found = run('mask_rcnn/pvt_nano_digits', image, '--score-thr', 0)
    scores = [found_object['score'] for found_object in found['images'][0]['objects']]
    _, found = run('mask_rcnn/pvt_nano_digits', image, '--score-thr', scores[2])
    (entry,) = found['images']
    assert scores[0] >= entry['objects'][-1]['score'] >= scores[2] > scores[-1]
    masks = rle.decode([found_object['mask'] for found_object in entry['objects']])
    assert masks.shape == (96, 96, len(entry['objects'])) and masks.any()


def test_a_segmenter_writes_pictures_and_label_maps_with_the_palette(run, digits, tmp_path):
    images = digits / 'ADEChallengeData2016' / 'images' / 'validation'
    # as mmseg's checkpoints tell it
    meta = dict(classes=list(map(str, range(11))), palette=[[i, 2 * i, 3 * i] for i in range(11)], label_map=None)
    cv2.imwrite(str(tmp_path / 'wide.png'), np.zeros((60, 90, 3), np.uint8))  # mmseg cannot put it in their batch
    _, found = run('semantic_fpn/pvt_nano_digits', images, tmp_path / 'wide.png', '--batch', 3, dataset_meta=meta)
    assert [(entry['width'], entry['height']) for entry in found['images']] == [(96, 96)] * 8 + [(90, 60)]
    for entry in found['images']:
        label_map = Image.open(tmp_path / 'out' / entry['label_map'])
        assert label_map.mode == 'P' and label_map.size == (entry['width'], entry['height'])
        assert np.array(label_map).max() < 11
        assert label_map.getpalette()[:33] == sum(meta['palette'], [])
        assert (tmp_path / 'out' / entry['picture']).is_file()


def test_a_checkpoint_with_the_names_of_mmdets_port_finds_the_same(command, digits, tmp_path):
    config, image = 'retinanet/pvt_nano_digits', digits / 'coco' / 'val2017' / '000000000001.jpg'
    weights = torch.load(checkpoint(config, tmp_path / 'ours.pth'))['state_dict']
    backbone = {key.removeprefix('backbone.'): value for key, value in weights.items() if 'backbone' in key}
    backbone, _ = from_published(backbone, 'mmdet')
    weights = {key: value for key, value in weights.items() if 'backbone' not in key}
    weights.update({f'backbone.{key}': value for key, value in backbone.items()})
    torch.save(dict(state_dict=weights, meta=dict(CLASSES=tuple('abcdefghij'))), tmp_path / 'theirs.pth')
    objects = []
    for name in ('ours', 'theirs'):
        flags = ['--out', tmp_path / name, '--score-thr', 0, '--cfg-options', 'model.test_cfg.score_thr=0.0']
        assert command(predict, config, tmp_path / f'{name}.pth', image, *flags) is None
        found = json.loads((tmp_path / name / 'predictions.json').read_text())
        objects.append([(entry['score'], entry['box']) for entry in found['images'][0]['objects']])
    assert objects[0] == objects[1] and objects[0] and found['classes'] == list('abcdefghij')


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(run, digits, tmp_path):
    (tmp_path / 'text.jpg').write_text('no image')
    (tmp_path / 'empty.mp4').write_text('no video')
    image = digits / 'coco' / 'val2017' / '000000000001.jpg'
    address = 'http://127.0.0.1:9/a.jpg'
    end, found = run('retinanet/pvt_nano_digits', tmp_path / '*.*', address, image, '--batch', 2)
    assert end.startswith('predict.py: 3 could not be used:\n') and len(end.splitlines()) == 4
    for line in ('empty.mp4 OpenCV reads no frame', 'text.jpg cannot be read', f'{address} cannot be fetched'):
        assert line in end
    assert [entry['file'] for entry in found['images']] == [str(image)]


@pytest.mark.parametrize('config', ['retinanet/pvt_nano_digits', 'semantic_fpn/pvt_nano_digits'])
def test_a_video_becomes_a_video_again(run, tmp_path, config):
    write_video(tmp_path / 'clip.mp4', 3)
    _, found = run(config, tmp_path / 'clip.mp4', '--batch', 2)
    assert [(entry['frame'], entry['picture']) for entry in found['images']] == [(i, 'vis/clip.mp4') for i in range(3)]
    video = cv2.VideoCapture(str(tmp_path / 'out' / 'vis' / 'clip.mp4'))
    frames = [video.read() for _ in range(4)]
    assert [read for read, _ in frames] == [True] * 3 + [False] and frames[0][1].shape == (64, 96, 3)
    if config.startswith('semantic'):
        assert [entry['label_map'] for entry in found['images']] == [f'pred/clip/{i:06}.png' for i in range(3)]


def test_an_address_is_fetched(run, digits, tmp_path, monkeypatch):
    image = digits / 'coco' / 'val2017' / '000000000001.jpg'
    monkeypatch.setattr('urllib.request.urlopen', lambda address, timeout: image.open('rb'))
    end, found = run('retinanet/pvt_nano_digits', 'https://example.org/a%20b.JPG?size=1')
    assert end is None and found['images'][0]['picture'] == 'vis/a b.jpg'


def test_places_are_files_folders_and_globs_and_names_do_not_collide(tmp_path):
    for name in ('a/1.jpg', 'a/notes.txt', 'b/1.jpg', 'b/1.png', 'b/deep/2.PNG', 'c/3.mp4', 'd[1].jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def find(*places: str) -> list[tuple[str, str]]:
        return [
            (source.place.removeprefix(f'{tmp_path}/'), source.name)
            for source in find_sources([str(tmp_path / place) for place in places])
        ]

    assert find('a', 'b', 'a/1.jpg') == [('a/1.jpg', '1'), ('b/1.jpg', '1_2'), ('b/1.png', '1_3')]
    assert find('b/**') == [('b/1.jpg', '1'), ('b/1.png', '1_2'), ('b/deep/2.PNG', '2')]
    assert find('c/*', 'd[1].jpg') == [('c/3.mp4', '3'), ('d[1].jpg', 'd[1]')]
    for place, message in {'e.jpg': 'does not exist', 'c': 'holds no image', '*.gif': 'holds no image'}.items():
        with pytest.raises(SettingError, match=message):
            find(place)


def test_a_misspelt_option_and_a_lacking_device_end_in_one_line(command, monkeypatch, tmp_path):
    (tmp_path / 'a.pth').touch()
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for flags, message in {
        ('--cfg-options', 'model.bckbone.type=PVT'): 'is it model.backbone',
        ('--device', 'cuda:1'): '--device cuda:1',
        ('--batch', '0'): '--batch 0',
    }.items():
        assert message in command(predict, 'retinanet/pvt_nano_digits', tmp_path / 'a.pth', ROOT / 'docs', *flags)


@pytest.mark.parametrize('fault', ['another model', 'a missing weight'])
def test_a_checkpoint_that_does_not_fit_is_not_used(tmp_path, fault):
    cfg = Config.fromfile(ROOT / 'configs/retinanet/pvt_nano_digits.py')
    path = checkpoint('retinanet/r18_nano_digits', tmp_path / 'a.pth')
    message = 'a.pth: none of its'
    if fault == 'a missing weight':
        path = checkpoint('retinanet/pvt_nano_digits', tmp_path / 'a.pth')
        read = torch.load(path, weights_only=True)
        del read['state_dict']['bbox_head.retina_cls.bias']
        torch.save(read, path)
        message = 'missing or of another shape are bbox_head.retina_cls.bias'
    with pytest.raises(CheckpointError, match=message):
        load_inferencer(cfg, path, 'cpu')


def test_classes_are_those_of_the_checkpoint_or_else_of_the_configs_dataset():
    cfg = Config.fromfile(ROOT / 'configs/semantic_fpn/pvt_small_80k.py')
    init_default_scope('mmseg')
    meta = find_meta(cfg, dict(meta=dict(dataset_meta=dict(CLASSES=('a',), PALETTE=[[1, 2, 3]]))))
    assert meta == dict(classes=('a',), palette=[(1, 2, 3)])
    assert len(find_meta(cfg, {})['classes']) == 150
    for damaged in ([1], 'text', {1: 2}, dict(classes=3), dict(classes=[3])):
        assert len(find_meta(cfg, dict(meta=dict(dataset_meta=damaged)))['classes']) == 150
    cfg.test_dataloader.dataset.metainfo = dict(classes=('b', 'c'))
    meta = find_meta(cfg, {})
    assert meta['classes'] == ('b', 'c') and len(meta['palette']) == 2  # ADE20K's 150 colours are others'
