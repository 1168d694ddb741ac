import copy
import functools

import pytest
import torch
from mmdet.models.backbones import PyramidVisionTransformerV2

from pvt_mm.models import PVTv2, cpu
from pvt_mm.models.archs import ARCHS_V2
from tests.parity import (
    DENSE_V2,
    DENSE_V2_CASES,
    LOGITS_V2,
    dense_errors,
    formula_images,
    formula_weights,
    relative_error,
)

NANO = dict(
    embed_dims=(16, 32, 48, 64),
    num_layers=(1, 1, 1, 1),
    num_heads=(1, 2, 3, 4),
    mlp_ratios=(2, 2, 2, 2),
    sr_ratios=(8, 4, 2, 1),
    patch_sizes=(7, 3, 3, 3),
    strides=(4, 2, 2, 2),
    linear=(False, False, False, False),
)
LINEAR = dict(NANO, linear=(True, True, True, True))


@functools.cache
def published(variant: str, **kwargs) -> PVTv2:
    model = PVTv2(variant, **kwargs).eval()
    model.load_state_dict(formula_weights(model))
    return model


def nano(arch=NANO, **kwargs) -> PVTv2:
    torch.manual_seed(0)
    return PVTv2(arch, **kwargs)


@pytest.mark.parametrize('case', DENSE_V2_CASES)
def test_maps_equal_the_published_ones(case, device):
    variant, shape = case.rsplit('_', 1)
    model = copy.deepcopy(published(variant)).to(device)
    images = formula_images(*map(int, shape.split('x'))).to(device)
    with torch.no_grad():
        assert max(dense_errors(model(images), case, DENSE_V2)) < 5e-6
        with torch.autocast(device, torch.bfloat16):
            assert max(dense_errors(model(images), case, DENSE_V2)) < 3e-2  # b5 has 52 layers
        assert max(dense_errors(model.double()(images.double()), case, DENSE_V2)) < 1e-7


@pytest.mark.parametrize('variant', LOGITS_V2.files)
def test_logits_equal_the_published_ones(variant):
    with torch.no_grad():
        logits = published(variant, num_classes=1000)(formula_images(2, 224, 224))
    assert relative_error(logits, LOGITS_V2[variant]) < 1e-5


def test_parameters_of_the_classifiers_are_those_of_the_table():
    millions = dict(b0=3.7, b1=14.0, b2_li=22.6, b2=25.4, b3=45.2, b4=62.6, b5=82.0)
    assert set(millions) == set(ARCHS_V2)
    for arch, expected in millions.items():
        with torch.device('meta'):
            model = PVTv2(arch, num_classes=1000)
        assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == expected


@pytest.mark.parametrize('arch, size', [(NANO, (29, 30)), (NANO, (100, 75)), (LINEAR, (1, 1)), (LINEAR, (33, 47))])
def test_any_size_gives_maps_of_the_size_rounded_up(arch, size):
    maps = nano(arch).eval()(torch.randn(1, 3, *size))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip(NANO['embed_dims'], (4, 8, 16, 32))
    ]
    assert all(m.is_contiguous() for m in maps)


def test_too_small_an_image_is_refused():
    with pytest.raises(ValueError, match='28x64 px is too small: at least 29 px'):
        nano()(torch.randn(1, 3, 28, 64))


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(arch='small'), "arch='small' is none of b0, b1, b2, b2_li, b3, b4, b5, nor a dict"),
        (dict(arch=dict(NANO, linear=(1, 0, 0, 0))), 'linear=.* must be True or False for each stage'),
        (dict(arch={k: v for k, v in NANO.items() if k != 'strides'}), r"arch lacks \['strides'\]"),
        (dict(frozen_stages=5), 'frozen_stages=5 must be from -1 to 4'),
        (dict(out_indices=(0,), frozen_stages=2), 'frozen_stages=2 must be from -1 to 1'),
        (dict(out_indices=(0, 1), num_classes=10), r'num_classes=10 needs the last stage'),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        PVTv2(**{'arch': NANO, **settings})


@pytest.mark.parametrize('out_indices', [(0,), (1, 2), (3,)])
def test_out_indices_choose_the_maps_and_no_later_stage_is_built(out_indices):
    image = torch.randn(1, 3, 64, 96)
    whole, part = nano().eval(), nano(out_indices=out_indices).eval()
    assert not hasattr(part, f'block{out_indices[-1] + 2}')
    part.load_state_dict(whole.state_dict(), strict=False)
    for ours, i in zip(part(image), out_indices, strict=True):
        torch.testing.assert_close(ours, whole(image)[i])


@pytest.mark.parametrize('arch', [NANO, LINEAR])
def test_every_parameter_gets_a_gradient(arch):
    model = nano(arch)
    sum(m.square().sum() for m in model(torch.randn(2, 3, 64, 96))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize('frozen_stages', [0, 1, 4])
def test_frozen_stages_neither_learn_nor_drop(frozen_stages):
    model = nano(frozen_stages=frozen_stages, drop_rate=0.5).train()
    frozen = {name.split('.')[0] for name, p in model.named_parameters() if not p.requires_grad}
    parts = [f'{part}{i + 1}' for i in range(frozen_stages) for part in ('patch_embed', 'block', 'norm')]
    assert frozen == {'patch_embed1', *parts}
    for name in frozen:
        assert not any(module.training for module in getattr(model, name).modules())


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('arch', [NANO, LINEAR])
def test_feed_forward_in_chunks_is_that_of_the_whole_map(monkeypatch, arch, with_cp):
    """Two images of 13 rows in the first stage: chunks of other heights, and rows on both sides of each."""
    whole, chunked = nano(arch, chunked=False, with_cp=with_cp), nano(arch, with_cp=with_cp)
    chunked.load_state_dict(whole.state_dict())
    image = torch.randn(2, 3, 52, 72)
    results = []
    for model, values in ((whole, 2**20), (chunked, 3 * 18 * 32)):
        monkeypatch.setattr(cpu, 'CHUNK_VALUES', values)
        maps = model(image)
        sum(m.square().sum() for m in maps).backward()
        results.append([*maps, *(p.grad for p in model.parameters())])
    calls = []
    chunked.block1[0].mlp.fc1.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        chunked(image)
    assert len(calls) == 2 * 5
    for expected, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_stochastic_depth_rises_linearly_over_all_layers():
    model = PVTv2('b0', drop_path_rate=0.7)
    rates = [block.drop_path.drop_prob for i in range(4) for block in getattr(model, f'block{i + 1}')]
    assert rates == pytest.approx([0.1 * i for i in range(8)])


def test_a_classifiers_weights_load_into_a_backbone_without_a_missing_one(tmp_path):
    classifier = nano(num_classes=7)
    torch.save(classifier.state_dict(), tmp_path / 'a.pth')
    model = PVTv2(NANO, pretrained=str(tmp_path / 'a.pth'))
    model.init_weights()
    for name, value in model.state_dict().items():
        assert torch.equal(value, classifier.state_dict()[name])


@pytest.mark.parametrize('arch', [NANO, LINEAR])
def test_export_at_any_size_runs_at_every_size(arch):
    model = nano(arch).eval()
    sides = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    exported = torch.export.export(model, (torch.randn(2, 3, 64, 96),), dynamic_shapes=(sides,)).module()
    for size in ((1, 3, 64, 96), (3, 3, 100, 140)):
        images = torch.randn(size)
        for ours, expected in zip(exported(images), model(images), strict=True):
            torch.testing.assert_close(ours, expected)


def test_compiles_without_a_graph_break_for_changing_sizes():
    model = torch.compile(nano().eval(), backend='eager', fullgraph=True, dynamic=True)
    for size in ((64, 96), (96, 64), (72, 100)):
        model(torch.randn(1, 3, *size))


def test_mmdets_port_has_as_many_parameters():
    """It is what the benchmarks set beside ours."""
    theirs = PyramidVisionTransformerV2(embed_dims=64, num_layers=[3, 4, 6, 3])
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in PVTv2('b2').parameters())
