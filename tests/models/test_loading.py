"""Weights come out right whoever loads them. Position embeddings hold coordinates, so that a wrong grid is seen."""

import copy
import logging
import os
from collections import OrderedDict

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.logging import MMLogger
from mmengine.model import BaseModule, ExponentialMovingAverage
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import get_state_dict
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pvt_mm import PVT, ColumnarViT
from pvt_mm.errors import CheckpointError
from pvt_mm.weights.loading import load_weights
from tests.common import NANO, ROOT

ARCH = dict(
    embed_dims=(8, 8, 8, 8),
    num_layers=(1, 1, 1, 1),
    num_heads=(1, 1, 1, 1),
    mlp_ratios=(1, 1, 1, 1),
    sr_ratios=(8, 4, 2, 1),
    patch_sizes=(4, 2, 2, 2),
)


def coordinates(height: int, width: int) -> Tensor:
    """(1, H*W, 8): the middle of each position, from 0 to 1 a side."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing='ij')
    return torch.stack([y, x, y * x, y**2, x**2, y - x, y + x, 1 - y], dim=2).flatten(0, 1)[None]


def pvt(img_size, **kwargs) -> PVT:
    """A PVT whose position embeddings hold coordinates."""
    torch.manual_seed(0)
    model = PVT(ARCH, img_size=img_size, **kwargs)
    for name, grid in model.grids.items():
        parameter = getattr(model, name)
        parameter.data[:, -grid[0] * grid[1] :] = coordinates(*grid)
    return model


def spoilt(img_size, **kwargs) -> PVT:
    """A PVT of which every weight is to be loaded."""
    model = PVT(ARCH, img_size=img_size, **kwargs)
    for parameter in model.parameters():
        parameter.data.fill_(float('nan'))
    return model


def check(model: PVT, old: tuple[int, int]) -> None:
    """The position embeddings are those of the image size ``old``, resized."""
    for name, grid in model.grids.items():
        stride = model.strides[name]
        source = (
            coordinates(old[0] // stride, old[1] // stride).unflatten(1, (old[0] // stride, -1)).permute(0, 3, 1, 2)
        )
        expected = nn.functional.interpolate(source, grid, mode='bilinear').flatten(2).transpose(1, 2)
        torch.testing.assert_close(getattr(model, name)[:, -grid[0] * grid[1] :].detach(), expected)
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name


SIZES = [
    (224, 224),  # square
    (288, 512),  # 9:16, with a square number of positions in every stage
    (576, 1024),
    (128, 512),  # 1:4
    (112, 448),  # as many positions as 224x224
    (256, 512),
    (224, 504),  # 4:9
    (210, 333),  # no multiples of 32
    (33, 95),
    (512, 288),
]


@pytest.fixture
def log(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize('new', SIZES)
@pytest.mark.parametrize('old', SIZES)
@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (1, 2)])
def test_our_own_weights_come_out_right_at_every_size(tmp_path, log, old, new, out_indices):
    torch.save(pvt(old, out_indices=out_indices).state_dict(), tmp_path / 'a.pth')
    model = spoilt(new, out_indices=out_indices)
    model.load_state_dict(torch.load(tmp_path / 'a.pth', weights_only=True), strict=True)
    check(model, old)
    assert 'guessed' not in log.text.lower() and ('resized' in log.text) == (old != new)


@pytest.mark.parametrize('new', SIZES)
def test_a_classifiers_embeddings_are_square_without_a_word_about_it(log, new):
    model = spoilt(new)
    model.load_state_dict(dict(pvt(224, num_classes=3).state_dict()))
    check(model, (224, 224))
    assert 'guessed' not in log.text.lower()


def test_a_classifiers_grid_that_may_be_the_models_own_is_said(log):
    weights = dict(pvt((288, 512), num_classes=3).state_dict())  # 96x96 has as many positions
    spoilt((288, 512), num_classes=3).load_state_dict(weights)
    assert any(record.levelname == 'WARNING' and 'img_size' in record.message for record in log.records)


@pytest.mark.parametrize(
    'old, new, reason, warns',
    [
        ((224, 224), (224, 224), None, False),
        ((288, 512), (288, 512), "the model's own grids", True),  # 96x96 has as many positions
        ((210, 333), (210, 333), "the model's own grids", True),  # and 333x210
        ((288, 512), (576, 1024), "the model's aspect ratio", True),
        ((210, 333), (420, 666), "the model's aspect ratio", True),
        ((224, 224), (320, 320), "the model's aspect ratio", True),
        ((224, 224), (320, 512), 'square', True),
        ((128, 512), (160, 640), "the model's aspect ratio", True),
    ],
)
@pytest.mark.parametrize('class_row', [True, False])
def test_untold_grids_are_guessed_and_said(log, old, new, reason, warns, class_row):
    weights = dict(pvt(old).state_dict())
    if not class_row:
        weights['pos_embed4'] = weights['pos_embed4'][:, 1:]
    model = spoilt(new)
    if not class_row:
        model.pos_embed4.data[:, :1] = 0  # it has no class token: what it keeps is not used
    model.load_state_dict(weights, strict=True)
    check(model, old)
    assert (f'({reason})' in log.text) if reason else 'guessed' not in log.text.lower()
    assert any(record.levelname == 'WARNING' and 'img_size' in record.message for record in log.records) == warns


def test_a_grid_that_nothing_tells_is_refused_and_the_way_out_named(log):
    weights = dict(pvt((256, 512)).state_dict())
    with pytest.raises(RuntimeError, match='size mismatch for pos_embed1'):
        pvt(224).load_state_dict(weights)
    assert 'UNKNOWN' in log.text and 'img_size' in log.text and log.records[-1].levelname == 'WARNING'
    with pytest.raises(CheckpointError, match=r'a.pth does not tell the grids .*pos_embed1 \(8192 rows\).*img_size'):
        load_weights(pvt(224), weights, 'a.pth')


@pytest.mark.parametrize(
    'grids',
    [
        None,
        3,
        {'pos_embed1': 'ab'},
        {'pos_embed1': (1, 2)},
        {f'pos_embed{i}': (-1, -9) for i in (1, 2, 3, 4)},
        {'pos_embed1': (float('inf'), 1)},
    ],
)
def test_metadata_that_does_not_agree_is_not_believed(grids):
    weights = pvt((224, 224)).state_dict()
    weights._metadata['']['grids'] = grids
    model = spoilt((256, 256))
    model.load_state_dict(weights)
    check(model, (224, 224))


def test_a_state_dict_stays_as_it_is_and_loads_into_the_next_model():
    weights = pvt((288, 512)).state_dict()
    before = copy.deepcopy(weights)
    for size in ((224, 224), (576, 1024)):
        model = spoilt(size)
        model.load_state_dict(weights)
        load_weights(model, weights, 'weights')
        check(model, (288, 512))
    assert weights._metadata == before._metadata and weights.keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in weights.items())


def test_weights_keep_their_precision():
    weights = {key: value.double() * (1 + 1e-12) for key, value in pvt(224).state_dict().items()}
    model = pvt(224).double()
    model.load_state_dict(weights)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


class Detector(BaseModule):
    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(8, 2)


def by_mmengine(model, weights, path):
    torch.save(dict(state_dict=weights, meta={}), path)
    load_checkpoint(model, str(path))


def by_mmengine_with_a_prefix(model, weights, path):
    weights = OrderedDict((f'module.{key}', value) for key, value in weights.items())
    by_mmengine(model, weights, path)


def by_ema(model, weights, path):
    """As EMAHook loads weights when a model is tested."""
    ema = ExponentialMovingAverage(model)
    hook = EMAHook()
    hook.ema_model = ema
    hook.strict_load = True
    runner = type('Runner', (), dict(_resume=False))()
    hook.after_load_checkpoint(runner, dict(state_dict=weights))
    model.load_state_dict(ema.module.state_dict())


def by_swa(model, weights, path):
    averaged = AveragedModel(model)
    averaged.module.load_state_dict(weights, strict=True)
    model.load_state_dict(averaged.module.state_dict())


def by_ddp(model, weights, path):
    wrapped = nn.parallel.DistributedDataParallel(model)
    saved = OrderedDict((f'module.{key}', value) for key, value in weights.items())
    saved._metadata = {f'module.{key}'.removesuffix('.'): value for key, value in weights._metadata.items()}
    wrapped.load_state_dict(saved, strict=True)


def by_fsdp(model, weights, path):
    from torch.distributed.fsdp import FullyShardedDataParallel

    FullyShardedDataParallel(model, device_id=torch.device('cpu')).load_state_dict(weights, strict=True)


def by_torch_compile(model, weights, path):
    load_weights(torch.compile(model), weights, 'weights', strict=True)


def by_ours(model, weights, path):
    load_weights(model, weights, 'weights', strict=True)


@pytest.fixture(scope='module')
def process_group(tmp_path_factory):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path_factory.mktemp("gloo")}/store', rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    'load', [by_mmengine, by_mmengine_with_a_prefix, by_ema, by_swa, by_ddp, by_fsdp, by_torch_compile, by_ours]
)
def test_every_loader_gives_the_same_right_result(tmp_path, process_group, load):
    weights = get_state_dict(Detector(pvt(224)))  # as mmengine saves it
    model = Detector(spoilt((288, 512)))
    load(model, weights, tmp_path / 'a.pth')
    check(model.backbone, (224, 224))


def by_init_detector(cfg, path):
    from mmdet.apis import init_detector

    return init_detector(cfg, path, device='cpu')


def by_detectors_inferencer(cfg, path):
    from mmdet.apis import DetInferencer

    return DetInferencer(cfg, path, device='cpu').model


def by_init_model(cfg, path):
    from mmseg.apis import init_model

    return init_model(cfg, path, device='cpu')


def by_segmenters_inferencer(cfg, path):
    from mmseg.apis import MMSegInferencer

    return MMSegInferencer(cfg, path, device='cpu').model


@pytest.mark.parametrize(
    'system, load',
    [
        ('retinanet', by_init_detector),
        ('retinanet', by_detectors_inferencer),
        ('semantic_fpn', by_init_model),
        ('semantic_fpn', by_segmenters_inferencer),
    ],
)
def test_the_libraries_apis_give_the_same_right_result(tmp_path, system, load):
    cfg = Config.fromfile(ROOT / f'configs/{system}/pvt_nano_digits.py')
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.update(arch=ARCH, img_size=224)
    cfg.model.neck.in_channels = [8, 8, 8, 8]
    model = MODELS.build(cfg.model)
    model.backbone = pvt(224)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(CLASSES=('a',)))), tmp_path / 'a.pth')
    cfg.model.backbone.img_size = (288, 512)
    check(load(cfg, str(tmp_path / 'a.pth')).backbone, (224, 224))


def test_mmengines_and_torchs_state_dicts_tell_the_grids():
    model = Detector(pvt((288, 512)))
    for weights in (model.state_dict(), get_state_dict(model), copy.deepcopy(model).state_dict()):
        assert weights._metadata['backbone']['grids'] == dict(
            pos_embed1=(72, 128), pos_embed2=(36, 64), pos_embed3=(18, 32), pos_embed4=(9, 16)
        )


def test_the_columnar_vit_is_fitted_too():
    model = ColumnarViT(img_size=64, embed_dims=8, num_heads=1)
    model.pos_embed.data[:, 1:] = coordinates(4, 4)
    larger = ColumnarViT(img_size=96, embed_dims=8, num_heads=1)
    larger.load_state_dict(model.state_dict(), strict=True)
    assert (larger.pos_embed[:, 1:] - coordinates(6, 6)).abs().mean() < 0.05


def test_a_foreign_loader_that_finds_nothing_warns_by_name(log):
    Detector(pvt(224)).load_state_dict({'encoder.weight': torch.zeros(1)}, strict=False)
    warning = next(record.message for record in log.records if record.levelname == 'WARNING')
    assert 'MISSING' in warning and 'all ' in warning and 'backbone.pos_embed1' in warning


def test_resuming_at_another_size_ends_before_the_optimizer():
    weights = pvt(224).state_dict()
    load_weights(pvt(224), weights, 'epoch_1.pth', resume=True)
    with pytest.raises(
        CheckpointError, match='epoch_1.pth was trained with another img_size .pos_embed1 56x56 to 64x64'
    ):
        load_weights(pvt(256), weights, 'epoch_1.pth', resume=True)


def test_initialising_a_pvt_alone_says_loaded_and_no_more(tmp_path, log):
    torch.save(pvt(224, num_classes=3).state_dict(), tmp_path / 'a.pth')
    model = spoilt(224, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth')))
    model.init_weights()
    ours = [record for record in log.records if not record.message.startswith('Loads checkpoint')]  # mmengine's
    assert len(ours) == 1 and 'weights loaded' in ours[0].message
    check(model, (224, 224))


def test_inside_a_detector_the_log_says_loaded(tmp_path):
    torch.save(pvt(224, num_classes=3).state_dict(), tmp_path / 'a.pth')
    logger = MMLogger.get_instance('a', log_file=str(tmp_path / 'log'))
    MMLogger._instance_dict['a'] = MMLogger._instance_dict.pop('a')  # the current one
    model = Detector(spoilt(224, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'))))
    model.init_weights()
    for handler in logger.handlers:
        handler.flush()
    text = (tmp_path / 'log').read_text()
    del MMLogger._instance_dict['a']
    entries = text.split('Name of parameter')[1].split('\n\n')
    for entry in entries:
        if entry.strip().startswith('backbone.'):
            assert f'loaded from {tmp_path}/a.pth' in entry, entry
    assert text.count('loaded from') == len(list(model.backbone.parameters())) and os.path.getsize(tmp_path / 'log')


@pytest.mark.parametrize('value', [torch.tensor(1.0), torch.zeros(3136), torch.zeros(1, 3136), torch.zeros(1, 3136, 9)])
def test_a_position_embedding_that_is_none_is_named(value):
    report = load_weights(pvt(224), dict(pvt(224).state_dict()) | {'pos_embed1': value}, 'weights')
    assert report.misshapen == [f'pos_embed1 {tuple(value.shape)}, not (1, 3136, 8)']


def test_weights_that_are_not_finite_are_named_whoever_loads(monkeypatch):
    said = []
    monkeypatch.setattr('pvt_mm.weights.loading.print_log', lambda text, **settings: said.append(text))
    model = nn.ModuleDict(dict(backbone=PVT(NANO, img_size=64)))
    weights = model.state_dict()
    weights['backbone.patch_embed1.proj.bias'][:3] = float('nan')
    model.load_state_dict(weights)
    assert len(said) == 1
    assert 'NaN OR INFINITE (take an earlier checkpoint) (1): backbone.patch_embed1.proj.bias (3 of 16' in said[0]
