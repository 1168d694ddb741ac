"""PVT in the configs of mmdet and mmseg, as docs/other_models.md says."""

import json
import logging
import os
import re
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path

import mmdet.registry
import pytest
import torch
from mmdet.apis import init_detector
from mmdet.datasets import CocoDataset
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, DefaultScope
from PIL import Image

import pvt_mm.models
from pvt_mm.commands import train
from pvt_mm.commands.checks import check_training
from pvt_mm.commands.launch import dicts, set_data_root
from pvt_mm.weights.reading import read_checkpoint
from tests.common import ALONE, ROOT, THIN

PAGE = (ROOT / 'docs/other_models.md').read_text()
HEADER = re.search('```python\n(.*?)```', PAGE, re.DOTALL)[1]
BLOCKS = dict(re.findall('### (.*?)\n.*?```python\n(.*?)```', PAGE, re.DOTALL))
SECTIONS = dict(re.findall('\n## ([^\n]*)\n(?:(?!\n#).)*?```python\n(.*?)```', PAGE, re.DOTALL))
ARCHS = dict(PVT=THIN, PVTv2=dict(THIN, patch_sizes=(7, 3, 3, 3), strides=(4, 2, 2, 2), linear=(False,) * 4))


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What the backbones warn of."""
    lines = []
    monkeypatch.setattr(
        'pvt_mm.models.base.print_log',
        lambda text, **kwargs: lines.append(text) if kwargs.get('level') == logging.WARNING else None,
    )
    return lines


@pytest.fixture(scope='module')
def batches(digits) -> dict[str, dict]:
    """Two images with what is on them, of at most 128 px, for detectors and segmenters, by their scope.

    The images are real where PVT_MM_COCO and PVT_MM_ADE name some, else scenes of digits.
    """
    coco, ade = os.environ.get('PVT_MM_COCO'), os.environ.get('PVT_MM_ADE')
    load, resize = dict(type='LoadImageFromFile'), dict(type='Resize', scale=(128, 128), keep_ratio=True)
    annotations = dict(
        mmdet=dict(type='LoadAnnotations', with_bbox=True, with_mask=True), mmseg=dict(type='LoadAnnotations')
    )
    datasets = dict(
        mmdet=dict(
            type='CocoDataset',
            data_root=coco or str(digits / 'coco'),
            ann_file='annotations/instances_train2017.json',
            data_prefix=dict(img='train2017/'),
            metainfo=None if coco else dict(classes=tuple('0123456789')),
            filter_cfg=dict(filter_empty_gt=True),
        ),
        mmseg=dict(
            type='ADE20KDataset',
            data_root=ade or str(digits / 'ADEChallengeData2016'),
            data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        ),
    )
    found = {}
    for scope, pack in dict(mmdet='PackDetInputs', mmseg='PackSegInputs').items():
        with DefaultScope.overwrite_default_scope(scope):
            pipeline = [load, annotations[scope], resize, dict(type=pack)]
            dataset = DATASETS.build(dict(datasets[scope], pipeline=pipeline))
            found[scope] = pseudo_collate([dataset[0], dataset[1]])
        for sample in found[scope]['data_samples']:  # results are of this size too
            sample.set_metainfo(dict(ori_shape=sample.img_shape, scale_factor=(1.0, 1.0)))
    return found


def shrink(model: ConfigDict) -> None:
    """Makes a model quick for images of 128 px: fewer proposals and queries, no padding to another size."""
    if 'decode_head' in model:
        model.data_preprocessor.size = (128, 128)
    model.data_preprocessor.pop('batch_augments', None)
    few = dict(num_queries=50, num_proposals=50, max_per_img=20, num=8)  # num: of the boxes that a head is trained on
    for settings in dicts(model):
        settings.update({name: number for name, number in few.items() if name in settings})


def train_a_step_and_predict(
    cfg: Config, backbones: Iterable[tuple[str, dict]], batches: dict[str, dict], tmp_path: Path
) -> None:
    """The model of a config, with each of ``backbones`` (type and arch) in the place of its own."""
    (tmp_path / 'decay.py').write_text(SECTIONS['Layer-wise learning rates'])
    segmenter = 'decode_head' in cfg.model
    shrink(cfg.model)
    model = None
    for backbone, arch in backbones:
        torch.manual_seed(0)
        weights = getattr(pvt_mm.models, backbone)(arch).state_dict()
        torch.save(weights, tmp_path / 'a.pth')
        pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))
        cfg.model.backbone.update(type=backbone, arch=arch, init_cfg=pretrained)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            if model is None:
                model = revert_sync_batchnorm(MODELS.build(cfg.model))
                model.init_weights()
            else:  # the rest is the same, and takes the time
                model.backbone = MODELS.build(cfg.model.backbone)
                model.backbone.init_weights()
            optim_wrapper = build_optim_wrapper(model, dict(cfg.optim_wrapper, type='OptimWrapper'))
            decay = Config(dict(optim_wrapper=dict(cfg.optim_wrapper, type='OptimWrapper')))
            decay.merge_from_dict(Config.fromfile(tmp_path / 'decay.py').to_dict())
            decayed = build_optim_wrapper(model, decay.optim_wrapper)
        assert all(torch.equal(weights[key], value) for key, value in model.backbone.state_dict().items())
        rates = {group['params'][0]: group['lr'] for group in decayed.optimizer.param_groups}
        first, *_, last = model.backbone.parameters()
        assert rates[first] < rates[last] <= cfg.optim_wrapper.optimizer.lr
        # the published weights take RGB images of this range
        assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
        preprocessor = vars(model.data_preprocessor)  # mmseg's has the one name, its fork's and mmdet's the other
        assert preprocessor.get('channel_conversion') or preprocessor.get('_channel_conversion')
        data = deepcopy(batches[cfg.default_scope])
        if not any(step.get('with_mask') for step in cfg.train_pipeline) and not segmenter:
            for sample in data['data_samples']:
                del sample.gt_instances.masks
        optim_wrapper.zero_grad = lambda **kwargs: None  # keeps the gradients
        losses = model.train().train_step(data, optim_wrapper)
        assert losses['loss'].isfinite()
        assert not [key for key, value in model.backbone.named_parameters() if value.grad is None]
        found = model.eval().test_step({key: value[:1] for key, value in data.items()})[0]
        assert found.pred_sem_seg.shape == found.ori_shape if segmenter else 'scores' in found.pred_instances


@pytest.mark.parametrize('name', BLOCKS)
def test_each_config_builds_trains_a_step_and_predicts(name, batches, tmp_path, said):
    (tmp_path / 'config.py').write_text(HEADER + BLOCKS[name])
    cfg = Config.fromfile(tmp_path / 'config.py')
    assert cfg.model.backbone.type == 'PVT' and cfg.model.backbone.init_cfg.checkpoint == 'pvt://small'
    train_a_step_and_predict(cfg, ARCHS.items(), batches, tmp_path)
    if cfg.model.get('pretrained'):
        assert len(said) == len(ARCHS) and all('model.pretrained=None' in line for line in said)


@pytest.fixture(scope='module')
def odd_images(tmp_path_factory) -> dict[str, Path]:
    """Data of one image whose sides no pipeline makes multiples of 32, for detectors and segmenters, by their scope."""
    roots = {scope: tmp_path_factory.mktemp(scope) for scope in ('mmdet', 'mmseg')}
    box = dict(id=1, image_id=1, category_id=1, bbox=[50, 50, 300, 200], area=60000, iscrowd=0)
    box['segmentation'] = [[50, 50, 350, 50, 350, 250]]
    coco = dict(images=[dict(id=1, file_name='0.jpg', width=601, height=401)], annotations=[box])
    coco['categories'] = [dict(id=i + 1, name=name) for i, name in enumerate(CocoDataset.METAINFO['classes'])]
    image = Image.new('RGB', (601, 401))
    for part, number in dict(train2017=1, val2017=2).items():
        (roots['mmdet'] / part).mkdir()
        coco['images'][0]['file_name'] = f'{number}.jpg'
        image.save(roots['mmdet'] / f'{part}/{number}.jpg')
        (roots['mmdet'] / 'annotations').mkdir(exist_ok=True)
        (roots['mmdet'] / f'annotations/instances_{part}.json').write_text(json.dumps(coco))
    for part in ('training', 'validation'):
        for kind, suffix in dict(images='jpg', annotations='png').items():
            (roots['mmseg'] / kind / part).mkdir(parents=True)
            image.convert('L').save(roots['mmseg'] / f'{kind}/{part}/{part}.{suffix}')
    return roots


def lines_of_check(name: str, odd_images: dict[str, Path], tmp_path: Path, **preprocessor) -> tuple[Config, list[str]]:
    """A config of the page, with these settings of the data preprocessor, and what the checks before a run say."""
    (tmp_path / 'config.py').write_text(HEADER + BLOCKS[name])
    cfg, lines = Config.fromfile(tmp_path / 'config.py'), []
    set_data_root(cfg, str(odd_images[cfg.default_scope]))
    cfg.work_dir = str(tmp_path)
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    cfg.model.data_preprocessor.update(preprocessor)
    check_training(cfg, padding=True, log=lines.append)
    return cfg, lines


@pytest.mark.parametrize('name', BLOCKS)
def test_the_checks_before_a_run_pass_and_miss_no_pixels(name, odd_images, tmp_path):
    cfg, lines = lines_of_check(name, odd_images, tmp_path)
    assert not [line for line in lines if 'does not see' in line]
    schedulers = cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]
    # bases made for SGD's learning rates end at more than AdamW begins with
    assert max(scheduler.get('eta_min', 0) for scheduler in schedulers) < cfg.optim_wrapper.optimizer.lr


@pytest.mark.parametrize('name, padding', [('DINO', dict(pad_size_divisor=1)), ('UPerNet', dict(test_cfg=None))])
def test_without_padding_the_checks_name_what_is_not_seen(name, padding, odd_images, tmp_path):
    assert [line for line in lines_of_check(name, odd_images, tmp_path, **padding)[1] if 'does not see' in line]


@pytest.mark.parametrize('system', ['cascade_mask_rcnn', 'atss', 'gfl', 'sparse_rcnn'])
def test_each_3x_detector_of_pvtv2_builds_trains_a_step_and_predicts(system, batches, tmp_path):
    plain = ARCHS['PVTv2']
    for name, arch in dict(b2=plain, b2_li=dict(plain, linear=(True,) * 4)).items():
        cfg = Config.fromfile(ROOT / f'configs/{system}/pvt_v2_{name}_3x.py')
        assert (cfg.model.backbone.type, cfg.model.backbone.arch) == ('PVTv2', name)
        train_a_step_and_predict(cfg, [('PVTv2', arch)], batches, tmp_path)


NANO_DIGITS = ROOT / 'configs/retinanet/pvt_nano_digits.py'


def trained(command, digits, tmp_path, text: str, *options) -> dict:
    """The checkpoint after two training steps with a config of this text."""
    (tmp_path / 'config.py').write_text(text)
    flags = ('--data-root', digits / 'coco', '--work-dir', tmp_path, '--cfg-options', *ALONE, *options)
    few = ('train_cfg.max_epochs=1', 'train_dataloader.batch_size=8', 'val_dataloader.dataset.indices=1')
    assert not command(train, tmp_path / 'config.py', *flags, *few)
    return read_checkpoint(str(tmp_path / 'epoch_1.pth'))


def test_averaged_weights_are_saved_and_load(command, digits, tmp_path):
    text = f'_base_ = {str(NANO_DIGITS)!r}\n' + SECTIONS['Averaged weights (EMA)']
    saved = trained(command, digits, tmp_path, text, 'custom_hooks.0.momentum=0.5')
    averaged, last = saved['state_dict'], saved['ema_state_dict']
    assert saved['message_hub']['log_scalars']['train/loss'].current() > 0
    assert any(not torch.equal(value, last[f'module.{key}']) for key, value in averaged.items() if 'backbone' in key)
    detector = init_detector(str(tmp_path / 'config.py'), str(tmp_path / 'epoch_1.pth'), device='cpu')
    assert all(torch.equal(value, averaged[key]) for key, value in detector.state_dict().items())


KINDS = ['MODELS', 'TASK_UTILS', 'DATASETS', 'DATA_SAMPLERS', 'TRANSFORMS', 'METRICS', 'HOOKS', 'LOOPS', 'VISUALIZERS']


def in_pure_python(cfg: Config) -> str:
    """A config as a Python module, its types classes, as those in ``mmdet.configs``, which mmdet's wheel lacks."""
    imports = []

    def imported(match: re.Match) -> str:
        for name in KINDS:
            kind = getattr(mmdet.registry, name).get(match[1])
            if isinstance(kind, type) and kind.__name__ == match[1]:
                imports.append(f'from {kind.__module__} import {match[1]}')
                return f'type={match[1]}'
        return match[0]

    text = re.sub(r"type='(\w+)'", imported, cfg.pretty_text)
    return '\n'.join([*dict.fromkeys(imports), text])


def test_a_config_in_pure_python_trains(command, digits, tmp_path):
    base = in_pure_python(Config.fromfile(NANO_DIGITS))
    assert 'type=RetinaNet' in base and 'type=CocoDataset' in base and 'type=PackDetInputs' in base
    (tmp_path / 'base.py').write_text(base)
    text = SECTIONS['Pure Python configs']
    text, number = re.subn(r'from mmdet\.configs\.\S+ import', 'from .base import', text)
    assert number == 1
    saved = trained(command, digits, tmp_path, text, 'model.backbone.init_cfg=None')
    assert 'backbone.pos_embed4' in saved['state_dict']
