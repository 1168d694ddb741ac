"""The backbones in mmseg's own base configs, which are written for ResNets."""

import logging
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from pvt_mm.models import PVT, PVTv2
from tests.common import NANO

BASES = Path(mmseg.__file__).parent / '.mim/configs/_base_/models'
NANO_V2 = dict(NANO, patch_sizes=(7, 3, 3, 3), strides=(4, 2, 2, 2), linear=(False,) * 4)
CHANNELS = list(NANO['embed_dims'])
LAST = {'decode_head.in_channels': CHANNELS[3], 'auxiliary_head.in_channels': CHANNELS[2]}
EVERY = {'decode_head.in_channels': CHANNELS}
# What each config states beside the backbone: the channels of the maps that its heads take.
CHANGES = {
    'upernet_r50': EVERY | {'auxiliary_head.in_channels': CHANNELS[2]},
    'pspnet_r50-d8': LAST,
    'fcn_r50-d8': LAST,
    'deeplabv3plus_r50-d8': LAST | {'decode_head.c1_in_channels': CHANNELS[0]},
    # Both heads take one map: those of a dilated ResNet's last two stages are of one size. No later stage is needed.
    'ocrnet_r50-d8': {
        'backbone.out_indices': (0, 1, 2),
        'decode_head.0.in_channels': CHANNELS[2],
        'decode_head.1.in_channels': CHANNELS[2],
        'decode_head.1.in_index': 2,
    },
    'segformer_mit-b0': EVERY,
}


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What is logged as a warning."""
    lines = []
    monkeypatch.setattr(
        'pvt_mm.models.base.print_log',
        lambda text, **kwargs: lines.append(text) if kwargs['level'] == logging.WARNING else None,
    )
    return lines


@pytest.mark.parametrize('backbone, arch', [(PVT, NANO), (PVTv2, NANO_V2)])
@pytest.mark.parametrize('base', CHANGES)
def test_segmenters_of_mmseg_start_from_the_weights_of_init_cfg(base, backbone, arch, tmp_path, said):
    torch.manual_seed(0)
    torch.save(backbone(arch).state_dict(), tmp_path / 'a.pth')
    pretrained = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))
    cfg = Config.fromfile(BASES / f'{base}.py')
    cfg.model.backbone = dict(type=backbone.__name__, arch=arch, init_cfg=pretrained)
    cfg.merge_from_dict({f'model.{key}': value for key, value in CHANGES[base].items()})
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        model.init_weights()
    weights = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert all(torch.equal(weights[key], value) for key, value in model.backbone.state_dict().items())
    resnet = cfg.model.get('pretrained')
    assert [line for line in said if repr(resnet) in line and 'model.pretrained=None' in line] == said[: bool(resnet)]
    labels = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(19, (1, 64, 96))))
    images = torch.randn(2, 3, 64, 96)
    sum(v for k, v in model.loss(images, [labels] * 2).items() if 'loss' in k).backward()
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())
    assert model.eval().predict(images[:1])[0].pred_sem_seg.data.shape == (1, 64, 96)
