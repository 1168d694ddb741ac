import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from mmseg.models.losses import CrossEntropyLoss
from torch import nn

import pvt_mm
from pvt_mm.errors import SettingError
from pvt_mm.models import trans2seg
from tests.common import NANO
from tests.parity import TRANS2SEG, formula_weights, relative_error

SMALL = dict(
    in_channels=(16, 64), channels=8, num_classes=5, feat_size=(2, 2), embed_dims=16, num_layers=2, num_heads=2
)


def small_head(**settings) -> pvt_mm.Trans2SegHead:
    torch.manual_seed(0)
    return pvt_mm.Trans2SegHead(**(SMALL | settings))


def maps(batch: int = 2, last: tuple[int, int] = (2, 2)) -> tuple:
    """The first and last map of a backbone; the head reads no other."""
    torch.manual_seed(1)
    height, width = last
    return torch.randn(batch, 16, 8 * height, 8 * width), None, None, torch.randn(batch, 64, height, width)


@pytest.mark.parametrize('dtype, bound', [(torch.float32, 1e-5), (torch.float64, 1e-7)])
@pytest.mark.parametrize('case', [key for key in TRANS2SEG if not key.endswith('_stats')])
def test_logits_equal_those_of_the_published_head(case, dtype, bound):
    c1, c4, f4, f1, classes = (int(part.partition('=')[2]) for part in case.split(','))
    head = pvt_mm.Trans2SegHead((c1, c4), num_classes=classes, feat_size=(f4, f4)).eval()
    missing, unexpected = head.load_state_dict(formula_weights(head), strict=False)
    assert not unexpected and all('running' in key or 'num_batches' in key for key in missing)
    first, last = (
        torch.from_numpy(np.random.default_rng(seed).standard_normal((1, channels, side, side)).astype(np.float32))
        for seed, channels, side in ((7, c1, f1), (8, c4, f4))
    )
    with torch.no_grad():
        logits = head.to(dtype)((first.to(dtype), None, None, last.to(dtype)))
    stats = TRANS2SEG[f'{case}_stats']
    assert tuple(logits.shape) == tuple(stats[:4])
    assert relative_error(logits[:, ::5, ::4, ::4], TRANS2SEG[case]) < bound
    assert [float(logits.mean()), float(logits.std())] == pytest.approx(list(stats[4:]), rel=1e-4)


@pytest.mark.parametrize('scope', ['mmseg', 'mmdet', 'mmengine'])
def test_its_loss_is_mmsegs_in_any_scope(scope):
    with DefaultScope.overwrite_default_scope(scope):
        assert type(small_head().loss_decode) is CrossEntropyLoss


def test_mmseg_builds_it_by_its_name():
    init_default_scope('mmseg')
    assert isinstance(MODELS.build(dict(type='Trans2SegHead', **SMALL)), pvt_mm.Trans2SegHead)


@pytest.mark.parametrize('batch', [1, 2])
def test_classes_in_groups_give_the_same_logits(monkeypatch, batch):
    head = small_head().eval()
    whole = head(maps(batch))
    sizes = []
    head.pred.register_forward_hook(lambda module, args, out: sizes.append(len(out)))
    monkeypatch.setattr(trans2seg, 'GROUP_VALUES', 2 * batch * 8 * 16 * 16)
    torch.testing.assert_close(head(maps(batch)), whole)
    assert sizes == [2 * batch, 2 * batch, batch]


def test_every_parameter_that_learns_gets_a_gradient():
    """Or DDP would wait for it."""
    head = small_head(num_layers=3)
    head(maps()).sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in head.parameters())


def test_a_map_of_another_size_is_refused_in_one_line_or_resized():
    with pytest.raises(SettingError) as error:
        small_head()(maps(last=(2, 3)))
    assert str(error.value) == (
        'Trans2SegHead is for last maps of 2x2, feat_size, and got one of 2x3: set model.decode_head.resize=True, or '
        "test in windows of that size, model.test_cfg.mode='slide'"
    )
    assert small_head(resize=True)(maps(last=(2, 3))).shape == (2, 5, 16, 24)


def test_heads_must_share_the_width():
    with pytest.raises(ValueError, match='embed_dims=16 must be a multiple of num_heads=3'):
        small_head(num_heads=3)


@pytest.fixture(scope='module')
def segmenter() -> nn.Module:
    init_default_scope('mmseg')
    head = dict(type='Trans2SegHead', **SMALL)
    test_cfg = dict(mode='slide', crop_size=(64, 64), stride=(48, 48))
    model = dict(type='EncoderDecoder', backbone=dict(type='PVT', arch=NANO, img_size=64), decode_head=head)
    return MODELS.build(Config(dict(model=dict(model, test_cfg=test_cfg))).model).eval()


@pytest.mark.parametrize('size', [(64, 64), (80, 144), (64, 100)])
def test_an_image_of_any_size_runs_in_windows(segmenter, size):
    with torch.no_grad():
        (sample,) = segmenter.predict(torch.randn(1, 3, *size))
    assert tuple(sample.seg_logits.data.shape) == (5, *size)


@pytest.mark.parametrize('training', [True, False])
def test_a_compiled_head_gives_the_same(training):
    """In training the norms see all classes at once, which are more than a graph's group in testing."""
    head = small_head(num_classes=trans2seg.GROUP_COMPILED + 4).train(training)
    compiled = torch.compile(head, backend='eager')
    torch.testing.assert_close(compiled(maps()), head(maps()))
