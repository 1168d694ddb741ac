"""Mixed precision, here a CPU's."""

import argparse

import pytest
import torch
from mmcv.ops import nms, sigmoid_focal_loss
from mmcv.ops.focal_loss import ext_module
from mmdet.models.roi_heads import SingleRoIExtractor
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper

from pvt_mm.commands import train
from pvt_mm.engine.amp import keep_ops_in_float32

pytestmark = pytest.mark.usefixtures('fresh_ops')


def pool(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """What the RoI extractor makes of two maps in a far corner, and the first one's gradient."""
    torch.manual_seed(0)
    maps = [torch.randn(1, 4, 200 // 2**i, 200 // 2**i).to(dtype).requires_grad_() for i in range(2)]
    extractor = SingleRoIExtractor(dict(type='RoIAlign', output_size=2), out_channels=4, featmap_strides=[4, 8])
    with torch.autocast('cpu', torch.bfloat16):
        pooled = extractor(maps, torch.tensor([[0.0, 702.0, 706.0, 721.0, 735.0], [0.0, 11.0, 13.0, 300.0, 301.0]]))
    pooled.sum().backward()
    return pooled, maps[0].grad


def test_without_it_mmcvs_ops_have_no_bfloat16():
    with pytest.raises(RuntimeError, match='BFloat16'):
        pool(torch.bfloat16)


def test_regions_are_pooled_in_float32():
    keep_ops_in_float32()
    pooled, gradient = pool(torch.bfloat16)
    assert pooled.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    for ours, theirs in zip((pooled, gradient), pool(torch.float32)):
        torch.testing.assert_close(ours.float(), theirs, rtol=2**-7, atol=2**-7)


def test_nms_computes_in_float32():
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0], [0.0, 0.0, 8.0, 7.0], [20.0, 20.0, 28.0, 28.0]], dtype=torch.bfloat16)
    scores = torch.tensor([0.5, 0.75, 0.25], dtype=torch.bfloat16)
    with torch.autocast('cpu', torch.bfloat16):
        with pytest.raises(RuntimeError, match='BFloat16'):
            nms(boxes, scores, 0.5)
        keep_ops_in_float32()
        assert nms(boxes, scores, 0.5)[1].tolist() == [1, 2]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_the_focal_loss_is_handed_float32(monkeypatch, dtype):
    """mmcv has none for a CPU: what its kernel would get is looked at. In float16 it makes NaN of a logit of 9."""
    keep_ops_in_float32()
    handed = []
    monkeypatch.setattr(ext_module, 'sigmoid_focal_loss_forward', lambda *args, **kwargs: handed.extend(args))
    with torch.autocast('cpu', dtype):
        loss = sigmoid_focal_loss(
            torch.full((3, 2), 9.0, dtype=dtype), torch.zeros(3, dtype=torch.long), 2.0, 0.25, None, 'none'
        )
    assert (
        loss.dtype == torch.float32 and [arg.dtype for arg in handed if arg.is_floating_point()] == [torch.float32] * 3
    )


@pytest.mark.parametrize(
    'wrapper, asks',
    [
        (dict(type='OptimWrapper'), False),
        (dict(type='AmpOptimWrapper'), True),
        (dict(type='mmengine.AmpOptimWrapper', dtype='float16'), True),
        (dict(type=AmpOptimWrapper, dtype='bfloat16'), True),
    ],
)
def test_training_in_mixed_precision_asks_for_it(wrapper, asks):
    cfg = Config(dict(optim_wrapper=wrapper))
    train.apply_flags(
        cfg,
        argparse.Namespace(
            amp=False,
            auto_scale_lr=False,
            launcher='none',
            resume=None,
            resume_anyway=False,
            save_every=None,
            shard=None,
            vis=None,
        ),
    )
    if asks:
        assert pool(torch.bfloat16)[0].dtype == torch.float32
    else:
        with pytest.raises(RuntimeError, match='BFloat16'):
            pool(torch.bfloat16)
