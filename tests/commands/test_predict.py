import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from pvt_mm.commands.predict import find_images, find_meta, load_inferencer
from pvt_mm.errors import CheckpointError, SettingError
from tests.common import ROOT


def checkpoint(config: str, path, **meta) -> str:
    """A checkpoint of a config's model with random weights."""
    cfg = Config.fromfile(ROOT / 'configs' / f'{config}.py')
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict(), meta=meta), path)
    return str(path)


def test_a_detector_draws_and_writes_what_it_finds(tool, digits, tmp_path):
    path = checkpoint('retinanet/pvt_nano_digits', tmp_path / 'a.pth', dataset_meta=dict(CLASSES=tuple('abcdefghij')))
    images = digits / 'coco' / 'val2017'
    options = ('--cfg-options', 'model.test_cfg.score_thr=0.0')
    done = tool(
        'predict.py',
        'retinanet/pvt_nano_digits',
        path,
        images,
        '--out-dir',
        tmp_path / 'out',
        '--score-thr',
        0.0,
        *options,
    )
    assert done.stdout.splitlines()[-1] == f'8 images: {tmp_path}/out/vis'
    names = sorted(image.stem for image in images.iterdir())
    for name in names:
        picture = cv2.imread(str(tmp_path / 'out' / 'vis' / f'{name}.jpg'))
        assert picture.shape == (96, 96, 3)
        assert np.abs(picture.astype(int) - cv2.imread(str(images / f'{name}.jpg'))).max() > 100  # boxes are drawn
        assert json.loads((tmp_path / 'out' / 'preds' / f'{name}.json').read_text())['bboxes']


def test_a_segmenter_writes_pictures_and_label_maps(tool, digits, tmp_path):
    path = checkpoint('semantic_fpn/pvt_nano_digits', tmp_path / 'a.pth')
    image = digits / 'ADEChallengeData2016' / 'images' / 'validation' / '000000000001.jpg'
    tool('predict.py', 'semantic_fpn/pvt_nano_digits', path, image, '--out-dir', tmp_path / 'out')
    (label_map,) = (tmp_path / 'out' / 'pred').iterdir()
    assert (
        cv2.imread(str(label_map), cv2.IMREAD_UNCHANGED).max() < 11
        and len(list((tmp_path / 'out' / 'vis').iterdir())) == 1
    )


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


def test_images_that_are_none_are_named(tmp_path):
    (tmp_path / 'text.jpg').write_text('no image')
    for place, message in {'none.jpg': 'does not exist', 'text.jpg': 'is no image', '.': 'holds no image'}.items():
        with pytest.raises(SettingError, match=message):
            find_images([str(tmp_path / place)])


def test_classes_are_those_of_the_checkpoint_or_else_of_the_configs_dataset():
    cfg = Config.fromfile(ROOT / 'configs/semantic_fpn/pvt_small_80k.py')
    init_default_scope('mmseg')
    assert find_meta(cfg, dict(meta=dict(dataset_meta=dict(CLASSES=('a',))))) == dict(classes=('a',))
    assert len(find_meta(cfg, {})['classes']) == 150
    for damaged in ([1], 'text', {1: 2}, dict(classes=3), dict(classes=[3])):
        assert len(find_meta(cfg, dict(meta=dict(dataset_meta=damaged)))['classes']) == 150
    cfg.test_dataloader.dataset.metainfo = dict(classes=('b', 'c'))
    assert find_meta(cfg, {})['classes'] == ('b', 'c')
