"""Classifiers as files that run without PyTorch, beside what predict says."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmpretrain.apis import ImageClassificationInferencer

from pvt_mm.commands import export, init, predict, train
from pvt_mm.commands.export import find_resize, resize
from tests.common import ALONE, NANO, ROOT, run_onnx


@pytest.mark.parametrize('backbone', ['pvt', 'r18'])
def test_a_classifier_is_exported_with_its_colours_in_order(command, crops, tmp_path, capsys, backbone):
    config = f'classification/{backbone}_nano_digits'
    cfg = Config.fromfile(ROOT / f'configs/{config}.py')
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    head = model.backbone.head if backbone == 'pvt' else model.head.fc
    torch.nn.init.normal_(head.weight)  # so that scores depend on the image
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    flags = ('--out', tmp_path / 'model.onnx', '--images', crops / 'val/3')
    assert command(export, config, tmp_path / 'model.pth', *flags) is None
    assert 'scores: ' in capsys.readouterr().out


@pytest.mark.parametrize('channels', [1, 3])
def test_a_trained_classifiers_file_says_the_same_classes_as_predict(command, crops, tmp_path, channels):
    """By the short edge, a crop from the middle, and in grey where the model is."""
    config, tall = tmp_path / 'mine.py', tmp_path / 'tall.png'
    assert command(init, crops, '--task', 'classification', '--out', config) is None
    text = config.read_text().replace('channels = 3', f'channels = {channels}').replace("'pvt://small'", 'None')
    config.write_text(f"{text}\nmodel['backbone']['arch'] = {NANO!r}\n")
    flags = (
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *ALONE,
        'train_cfg.max_epochs=1',
        'optim_wrapper.optimizer.lr=3e-3',
    )
    assert command(train, config, *flags) is None
    checkpoint = tmp_path / 'epoch_1.pth'
    cv2.imwrite(str(tall), cv2.resize(cv2.imread(str(sorted(crops.glob('val/7/*'))[0])), (301, 417)))

    assert command(predict, config, checkpoint, tall, '--out', tmp_path, '--device', 'cpu') is None
    written = json.loads((tmp_path / 'predictions.json').read_text())
    assert written['classes'] == list('0123456789')
    (entry,) = written['images']
    assert (entry['width'], entry['height']) == (301, 417)
    assert cv2.imread(str(tmp_path / entry['picture'])).shape == (417, 301, 3)
    expected = {found['class']: found['score'] for found in entry['classes']}
    assert len(expected) == 5 and list(expected.values()) == sorted(expected.values(), reverse=True)
    if channels == 3:  # mmpretrain's own reads colour alone
        model = ImageClassificationInferencer(str(config), pretrained=str(checkpoint), device='cpu')
        scores = model(str(tall))[0]['pred_scores']
        assert scores[[int(name) for name in expected]] == pytest.approx(list(expected.values()), abs=1e-4)

    assert command(export, config, checkpoint, '--out', tmp_path / 'model.onnx') is None
    lines = run_onnx(tmp_path / 'model.onnx', tall, tmp_path / 'drawn.png')
    found = {name: float(score) for name, score in (line.rsplit(maxsplit=1) for line in lines)}
    assert list(found) == list(expected) and found == pytest.approx(expected, abs=1e-3)


def test_imagenets_own_pipeline_is_resized_by_the_file(real_coco):
    from mmcv.transforms import Compose

    cfg = Config.fromfile(ROOT / 'configs/classification/pvt_tiny_300e.py')
    init_default_scope('mmpretrain')
    pipeline = Compose(cfg.test_pipeline[:-1])
    steps = find_resize(cfg)
    assert steps == [['short', 256, 'pillow', 'bicubic'], ['crop', 224, 224]]
    for path in sorted((real_coco / 'val2017').glob('*.jpg'))[:10]:
        expected = pipeline(dict(img_path=str(path)))['img']
        assert expected.shape == (224, 224, 3)
        np.testing.assert_array_equal(resize(cv2.imread(str(path)), steps), expected)
