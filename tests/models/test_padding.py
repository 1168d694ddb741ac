"""What padding a batch does to the maps of its images, and that ``ignore_padding`` undoes it."""

import copy

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from benchmarks.peers import textbook_attention
from pvt_mm import PVT
from pvt_mm.commands.attention import attention_maps
from pvt_mm.models import cpu
from pvt_mm.models.padding import image_sizes, key_mask, own_position
from tests.common import NANO, ROOT

# One that fills its patches, and sides that are no multiples of 32, which mmdet pads to one.
SIZES = [(96, 192), (101, 135), (90, 64)]


def model(**settings) -> PVT:
    torch.manual_seed(0)
    model = PVT(NANO, **settings).eval()
    for name in model.grids:  # at their usual scale a wrong position would hardly be seen
        nn.init.normal_(getattr(model, name))
    return model


def padded(image: Tensor, height: int, width: int) -> Tensor:
    return pad(image, (0, width - image.shape[2], 0, height - image.shape[1]))


def alone_and_in_batch(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """An image of ``size`` padded to multiples of 32, and as the first of a batch of 224x256 px."""
    image = torch.randn(3, *size, generator=torch.Generator().manual_seed(1))
    alone = padded(image, *(-(-side // 32) * 32 for side in size))[None]
    return alone, torch.stack([padded(image, 224, 256), torch.randn(3, 224, 256)])


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The relative difference of maps of the first image, where it lies."""
    return float((theirs[:1, :, : ours.shape[2], : ours.shape[3]] - ours[:1]).norm() / ours[:1].norm())


@pytest.mark.parametrize('size', SIZES)
@torch.no_grad()
def test_maps_in_a_padded_batch_equal_those_of_the_image_alone(size):
    alone, batch = alone_and_in_batch(size)
    pvt = model(ignore_padding=True)
    for ours, theirs in zip(pvt(alone), pvt(batch), strict=True):
        assert difference(ours, theirs) < 1e-6
    pvt = model()  # the test sees the difference that padding makes
    assert all(difference(*maps) > 0.1 for maps in zip(pvt(alone), pvt(batch), strict=True))


@torch.no_grad()
def test_without_padding_the_setting_changes_nothing():
    images = torch.randn(2, 3, 96, 160)
    for ours, theirs in zip(model()(images), model(ignore_padding=True)(images), strict=True):
        assert difference(ours, theirs) < 1e-5


@torch.no_grad()
def test_off_masks_no_key_and_resizes_for_the_batch(monkeypatch):
    """Bit for bit what the attention gives that knows no mask."""
    _, batch = alone_and_in_batch((96, 192))
    ours = model()(batch)
    monkeypatch.setattr('pvt_mm.models.pvt.own_position', None)
    monkeypatch.setattr('pvt_mm.models.pvt.image_sizes', None)
    pvt = model()
    for i in range(4):
        for block in pvt.stage(i).blocks:
            block.attn.attention_fn = lambda q, k, v, attn_mask, dropout_p: scaled_dot_product_attention(q, k, v)
    assert all(torch.equal(*maps) for maps in zip(ours, pvt(batch), strict=True))


def test_sizes_are_read_off_the_zeros():
    batch = torch.stack([padded(torch.ones(3, 5, 7), 8, 8), torch.ones(3, 8, 8), torch.zeros(3, 8, 8)])
    batch[0, :, 2:4] = 0  # black lines inside
    batch[1, 1:] = 0  # one channel is enough
    assert image_sizes(batch).tolist() == [[5, 7], [8, 8], [1, 1]]


def test_keys_whose_window_holds_some_of_the_image_are_kept():
    kept = key_mask(torch.tensor([[4.0, 2.25], [8, 8]]), (9, 8), 2)  # the last row fills no window
    assert kept.shape == (2, 1, 1, 16)
    assert kept[0].view(4, 4).tolist() == [[True, True, False, False]] * 2 + [[False] * 4] * 2
    assert kept[1].all()


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
def test_positions_end_with_the_image(dtype):
    """Those of a 6x8 image are the embedding resized to 6x8; beyond it they are those of its border."""
    position = torch.randn(1, 4 * 6, 8, dtype=dtype)
    own = own_position(position, (4, 6), torch.tensor([[6.0, 8.0]]), (9, 11)).unflatten(1, (9, 11))
    grid = position.to(torch.float64).unflatten(1, (4, 6)).permute(0, 3, 1, 2)
    resized = nn.functional.interpolate(grid, (6, 8), mode='bilinear').permute(0, 2, 3, 1)
    close = dict(atol=2e-2 if dtype == torch.bfloat16 else 1e-5, rtol=0)
    torch.testing.assert_close(own[:, :6, :8], resized.to(dtype), **close)
    torch.testing.assert_close(own[:, 6:], own[:, 5:6].expand(-1, 3, -1, -1), **close)
    torch.testing.assert_close(own[:, :, 8:], own[:, :, 7:8].expand(-1, -1, 3, -1), **close)


@torch.no_grad()
def test_the_cpus_attention_leaves_masked_keys_out(monkeypatch):
    monkeypatch.setattr(cpu, 'CHUNK_VALUES', 64)
    q, k, v = (torch.randn(2, 2, number, 16) for number in (30, 12, 12))
    mask = torch.rand(2, 1, 1, 12) < 0.5
    mask[..., 0] = True
    expected = textbook_attention(q, k, v, mask)
    torch.testing.assert_close(cpu.attention(q, k, v, mask), expected)
    torch.testing.assert_close(
        cpu.attention(*(t.bfloat16() for t in (q, k, v)), mask).float(), expected, atol=3e-2, rtol=0
    )
    for i in range(2):
        keys, values = (t[i : i + 1, :, mask[i, 0, 0]] for t in (k, v))
        torch.testing.assert_close(expected[i : i + 1], textbook_attention(q[i : i + 1], keys, values))


@torch.no_grad()
def test_the_attention_that_is_drawn_is_the_masked_one():
    _, batch = alone_and_in_batch((96, 192))
    weights = attention_maps(model(ignore_padding=True), batch[:1], (8, 8, 8, 8))
    assert weights[0].shape == (7, 8)  # keys of 32 px
    for stage in weights:
        inside = stage[: round(stage.shape[0] * 96 / 224), : round(stage.shape[1] * 192 / 256)]
        torch.testing.assert_close(inside.sum(), torch.tensor(1.0))
    weights = attention_maps(model(), batch[:1], (8, 8, 8, 8))
    assert all(stage[3:].sum() > 0 for stage in weights)


@pytest.mark.parametrize('with_cp', [False, True])
def test_gradients_of_an_image_are_those_it_has_alone(with_cp):
    alone, batch = alone_and_in_batch((96, 192))
    gradients = []
    for images in (alone, batch):
        pvt = model(ignore_padding=True, with_cp=with_cp).train()
        sum((m[:1, :, : 96 // s, : 192 // s] ** 2).mean() for m, s in zip(pvt(images), (4, 8, 16, 32))).backward()
        gradients.append({name: parameter.grad for name, parameter in pvt.named_parameters()})
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).norm() < 1e-4 * gradient.norm(), name


@torch.no_grad()
def test_an_exported_model_reads_the_sizes_of_its_own_batch():
    pvt = model(ignore_padding=True)
    dynamic = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(pvt, (torch.randn(2, 3, 96, 160),), dynamic_shapes=(dynamic,)).module()
    for images in alone_and_in_batch((101, 135)):
        for ours, theirs in zip(exported(images), pvt(images), strict=True):
            assert difference(ours, theirs) < 1e-6


def test_a_classifier_is_refused():
    with pytest.raises(ValueError, match='ignore_padding=True is for maps'):
        PVT(NANO, num_classes=5, ignore_padding=True)


@pytest.mark.parametrize('system', ['retinanet', 'mask_rcnn', 'detr'])
def test_a_detector_trains_on_images_of_two_shapes(system):
    register_all_modules()
    torch.manual_seed(0)
    cfg = Config.fromfile(ROOT / f'configs/{system}/pvt_nano_digits.py')
    cfg.model.data_preprocessor.update(pad_size_divisor=32)
    cfg.model.backbone.update(ignore_padding=True)
    detector = MODELS.build(cfg.model)
    detector.init_weights()
    rng = np.random.default_rng(0)
    images = [torch.from_numpy(rng.integers(0, 256, (3, *size), np.uint8)) for size in ((96, 160), (128, 75))]
    samples = []
    for image in images:
        sample = DetDataSample(metainfo=dict(img_shape=image.shape[1:], ori_shape=image.shape[1:], scale_factor=(1, 1)))
        box = torch.tensor([[8.0, 8, 60, 60]])
        sample.gt_instances = InstanceData(bboxes=box, labels=torch.tensor([1]))
        if system == 'mask_rcnn':
            from mmdet.structures.mask import BitmapMasks

            sample.gt_instances.masks = BitmapMasks(np.ones((1, *image.shape[1:]), np.uint8), *image.shape[1:])
        samples.append(sample)
    data = detector.data_preprocessor(dict(inputs=images, data_samples=copy.deepcopy(samples)), True)
    assert data['inputs'].shape[2:] == (128, 160)
    assert image_sizes(data['inputs']).tolist() == [[96, 160], [128, 75]]
    loss, _ = detector.parse_losses(detector(**data, mode='loss'))
    loss.backward()
    for name, parameter in detector.backbone.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    assert detector.backbone.pos_embed1.grad.norm() > 0
