"""PVT in the configs of mmdet and mmseg, as docs/other_models.md says."""

import logging
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

import pvt_mm.models
from tests.common import ROOT, THIN

PAGE = (ROOT / 'docs/other_models.md').read_text()
HEADER = re.search('```python\n(.*?)```', PAGE, re.DOTALL)[1]
BLOCKS = dict(re.findall('### (.*?)\n.*?```python\n(.*?)```', PAGE, re.DOTALL))
ARCHS = dict(PVT=THIN, PVTv2=dict(THIN, patch_sizes=(7, 3, 3, 3), strides=(4, 2, 2, 2), linear=(False,) * 4))
ARCHS['linear PVTv2'] = dict(ARCHS['PVTv2'], linear=(True,) * 4)


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What the backbones warn of."""
    lines = []
    monkeypatch.setattr(
        'pvt_mm.models.base.print_log',
        lambda text, **kwargs: lines.append(text) if kwargs.get('level') == logging.WARNING else None,
    )
    return lines


def image(height: int, width: int) -> torch.Tensor:
    """A BGR image, uint8, 3 x height x width: a scene with a bright box on a gradient."""
    scene = np.tile(np.linspace(0, 120, width, dtype=np.uint8)[None, :, None], (height, 1, 3)).copy()
    cv2.rectangle(scene, (20, 20), (60, 70), (40, 200, 250), -1)
    return torch.from_numpy(scene).permute(2, 0, 1)


def batch(segmenter: bool, masks: bool) -> dict:
    """Two images of an object: its label map, or its box and, if asked for, its mask."""
    samples = []
    for height, width in [(96, 128), (128, 96)]:
        meta = dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0), flip=False)
        mask = np.zeros((1, height, width), np.uint8)
        mask[:, 20:70, 20:60] = 1
        if segmenter:
            sample = SegDataSample(gt_sem_seg=PixelData(data=torch.from_numpy(mask).long()), metainfo=meta)
        else:
            boxes, labels = torch.tensor([[20.0, 20.0, 60.0, 70.0]]), torch.tensor([1])
            truth = InstanceData(bboxes=boxes, labels=labels)
            if masks:
                truth.masks = BitmapMasks(mask, height, width)
            sample = DetDataSample(gt_instances=truth, metainfo=dict(meta, batch_input_shape=(128, 128)))
        samples.append(sample)
    return dict(inputs=[image(96, 128), image(128, 96)], data_samples=samples)


def shrink(model: ConfigDict) -> None:
    """Makes a model quick for images of 128 px: fewer proposals, queries and stages, no padding to another size."""
    if 'decode_head' in model:
        model.data_preprocessor.size = (128, 128)
    model.data_preprocessor.pop('batch_augments', None)
    if 'num_queries' in model:
        model.num_queries = 100
    if 'num_proposals' in model.get('rpn_head', {}):
        model.rpn_head.num_proposals = model.test_cfg.rcnn.max_per_img = 20
        for stage in ('stage_loss_weights', 'bbox_head'):
            model.roi_head[stage] = model.roi_head[stage][:2]
        model.roi_head.num_stages = 2
        model.train_cfg.rcnn = model.train_cfg.rcnn[:2]
    if 'rpn_proposal' in (model.get('train_cfg') or {}):
        model.train_cfg.rpn_proposal.max_per_img = model.test_cfg.rpn.max_per_img = 50


@pytest.mark.parametrize('backbone', ['PVT', 'PVTv2'])
@pytest.mark.parametrize('name', BLOCKS)
def test_each_config_builds_trains_a_step_and_predicts(name, backbone, tmp_path, said):
    torch.manual_seed(0)
    weights = getattr(pvt_mm.models, backbone)(ARCHS[backbone]).state_dict()
    torch.save(weights, tmp_path / 'a.pth')
    (tmp_path / 'config.py').write_text(HEADER + BLOCKS[name])
    cfg = Config.fromfile(tmp_path / 'config.py')
    assert cfg.model.backbone.type == 'PVT' and cfg.model.backbone.init_cfg.checkpoint == 'pvt://small'
    trains_a_step_and_predicts(cfg, backbone, weights, tmp_path, said)


@pytest.mark.parametrize('system', ['cascade_mask_rcnn', 'atss', 'gfl', 'sparse_rcnn'])
@pytest.mark.parametrize('arch', ['b2', 'b2_li'])
def test_each_3x_detector_of_pvt_v2_builds_trains_a_step_and_predicts(system, arch, tmp_path, said):
    torch.manual_seed(0)
    cfg = Config.fromfile(ROOT / f'configs/{system}/pvt_v2_{arch}_3x.py')
    assert (cfg.model.backbone.type, cfg.model.backbone.arch) == ('PVTv2', arch)
    backbone = 'PVTv2' if arch == 'b2' else 'linear PVTv2'
    weights = pvt_mm.models.PVTv2(ARCHS[backbone]).state_dict()
    torch.save(weights, tmp_path / 'a.pth')
    trains_a_step_and_predicts(cfg, backbone, weights, tmp_path, said)


def trains_a_step_and_predicts(cfg: Config, backbone: str, weights: dict, tmp_path: Path, said: list[str]) -> None:
    """The model of a config with a thin backbone, whose pretrained ``weights`` are ``tmp_path / 'a.pth'``."""
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))
    cfg.model.backbone.update(type=backbone.split()[-1], arch=ARCHS[backbone], init_cfg=pretrained)
    segmenter = 'decode_head' in cfg.model
    data = batch(segmenter, masks=any(step.get('with_mask') for step in cfg.train_pipeline))
    shrink(cfg.model)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        model.init_weights()
        optim_wrapper = build_optim_wrapper(model, dict(cfg.optim_wrapper, type='OptimWrapper'))
    assert all(torch.equal(weights[key], value) for key, value in model.backbone.state_dict().items())
    # the published weights take RGB images of this range
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert model.data_preprocessor._channel_conversion if not segmenter else model.data_preprocessor.channel_conversion
    if cfg.model.get('pretrained'):
        assert 'model.pretrained=None' in said[0] and len(said) == 1
    optim_wrapper.zero_grad = lambda **kwargs: None  # keeps the gradients
    losses = model.train_step(data, optim_wrapper)
    assert losses['loss'].isfinite()
    unused = [key for key, value in model.backbone.named_parameters() if value.grad is None]
    assert not unused
    found = model.eval().test_step({key: value[:1] for key, value in data.items()})[0]
    assert found.pred_sem_seg.shape == (96, 128) if segmenter else 'scores' in found.pred_instances
