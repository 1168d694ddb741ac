import copy
import functools
import math
import weakref

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.peers import textbook_attention
from pvt_mm.models import PVT, cpu
from pvt_mm.models.archs import ARCHS
from pvt_mm.models.layers import Mlp, resize_position
from pvt_mm.models.pvt import SpatialReductionAttention
from tests.common import NANO
from tests.parity import DENSE_CASES, LOGITS, dense_errors, formula_images, formula_weights, relative_error


@functools.cache
def published(variant: str, **kwargs) -> PVT:
    model = PVT(variant, **kwargs).eval()
    model.load_state_dict(formula_weights(model))
    return model


def nano(**kwargs) -> PVT:
    torch.manual_seed(0)
    return PVT(NANO, img_size=64, **kwargs)


LARGE = ('1x800x1216', '2x480x640')


@pytest.mark.parametrize(
    'case', [pytest.param(case, marks=pytest.mark.slow if case.endswith(LARGE) else ()) for case in DENSE_CASES]
)
def test_maps_equal_the_published_ones(case, device):
    variant, shape = case.split('_')
    model = copy.deepcopy(published(variant)).to(device)
    images = formula_images(*map(int, shape.split('x'))).to(device)
    with torch.no_grad():
        assert max(dense_errors(model(images), case)) < 5e-6
        with torch.autocast(device, torch.bfloat16):
            assert max(dense_errors(model(images), case)) < 2e-2
        assert max(dense_errors(model.double()(images.double()), case)) < 1e-7


@pytest.mark.parametrize('with_cp', [False, True])
def test_maps_in_training_equal_the_published_ones(with_cp):
    model = copy.deepcopy(published('small')).train()
    model.with_cp = with_cp
    assert max(dense_errors(model(formula_images(1, 512, 512)), 'small_1x512x512')) < 5e-6


@pytest.mark.parametrize('variant', LOGITS.files)
def test_logits_equal_the_published_ones(variant):
    with torch.no_grad():
        logits = published(variant, num_classes=1000)(formula_images(2, 224, 224))
    assert relative_error(logits, LOGITS[variant]) < 1e-5


@pytest.mark.parametrize('variant, millions', [('tiny', 13.2), ('small', 24.5), ('medium', 44.2), ('large', 61.4)])
def test_parameter_counts_are_those_of_table_1(variant, millions):
    assert round(sum(p.numel() for p in PVT(variant, num_classes=1000).parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize('size, stage', [((448, 448), 1), ((392, 512), 1), ((896, 896), 2), ((196, 256), 0)])
def test_position_is_resized_where_the_published_code_has_its_defect(size, stage):
    """Some stage has 3136 tokens, as the learned 56x56, in another shape or place: the published code takes the
    embedding as it is there. Taking the embedding of the right size as a weight must change nothing."""
    model = PVT(NANO, img_size=224, out_indices=tuple(range(stage + 1))).eval()
    assert size[0] // (4 << stage) * (size[1] // (4 << stage)) == 3136
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        got = model(image)
        fitted = PVT(NANO, img_size=size, out_indices=tuple(range(stage + 1))).eval()
        weights = dict(model.state_dict())  # without the metadata that tells the grids
        for i in range(stage + 1):
            key = f'pos_embed{i + 1}'
            weights[key] = resize_position(weights[key], model.grids[key], fitted.grids[key])
        fitted.load_state_dict(weights)
        for ours, expected in zip(got, fitted(image), strict=True):
            torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize('size', [(32, 32), (33, 95), (100, 64), (127, 130)])
def test_any_size_from_32_px_gives_maps_of_the_floored_size(size):
    maps = nano().eval()(torch.randn(1, 3, *size))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, size[0] // s, size[1] // s) for c, s in zip(NANO['embed_dims'], (4, 8, 16, 32))
    ]


def test_what_hangs_over_the_last_patch_does_not_matter():
    model, image = nano().eval(), torch.randn(1, 3, 67, 99)
    for ours, cropped in zip(model(image), model(image[..., :64, :96]), strict=True):
        torch.testing.assert_close(ours, cropped)


def test_what_is_lost_is_said_once_with_the_way_out(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    model = nano().eval()
    for size in ((64, 96), (67, 99), (70, 64)):
        model(torch.randn(1, 3, *size))
    logger.removeHandler(caplog.handler)
    (record,) = caplog.records
    assert 'the last 3 rows and 3 columns' in record.message and 'pad_size_divisor=32' in record.message
    assert 'test_cfg=dict(size_divisor=32) in mmseg' in record.message


def test_too_small_an_image_is_refused():
    with pytest.raises(ValueError, match='31x64 px is too small: at least 32 px'):
        nano()(torch.randn(1, 3, 31, 64))


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(arch=None), 'arch=None is none of'),
        (dict(arch=dict(NANO, embed_dims=64)), 'embed_dims=64 must be a sequence'),
        (dict(arch='huge'), "arch='huge' is none of tiny, small, medium, large"),
        (dict(arch={k: v for k, v in NANO.items() if k != 'num_heads'}), r"arch lacks \['num_heads'\]"),
        (dict(arch=dict(NANO, width=3)), r"unknown \['width'\]"),
        (dict(arch=dict(NANO, num_heads=(1, 2, 3))), 'must be a sequence with an entry a stage'),
        (dict(arch=dict(NANO, num_heads=(1, 2, 3, 5))), 'must be multiples of num_heads'),
        (dict(arch=dict(NANO, num_layers=(1, 1, 1, 0))), 'num_layers=.* must be positive numbers'),
        (dict(img_size=16), 'img_size=16 must be at least 32'),
        (dict(img_size='224'), "img_size='224' must be a number of pixels"),
        (dict(img_size=None), 'img_size=None must be'),
        (dict(in_channels=0), 'in_channels=0'),
        (dict(in_channels='3'), "in_channels='3'"),
        (dict(out_indices=3), 'out_indices=3'),
        (dict(out_indices=None), 'out_indices=None'),
        (dict(out_indices=()), r'out_indices=\(\)'),
        (dict(out_indices=(0, 4)), r'out_indices=\(0, 4\) must be rising numbers from 0 to 3'),
        (dict(out_indices=(2, 1)), r'out_indices=\(2, 1\)'),
        (dict(drop_rate=1.0), r'drop_rate=1.0'),
        (dict(drop_rate='0.1'), "drop_rate='0.1'"),
        (dict(attn_drop_rate=-0.1), 'attn_drop_rate=-0.1'),
        (dict(drop_path_rate=2), 'drop_path_rate=2'),
        (dict(frozen_stages=5), 'frozen_stages=5 must be from -1 to 4'),
        (dict(frozen_stages=2, out_indices=(0,)), 'frozen_stages=2 must be from -1 to 1'),
        (dict(num_classes=0), 'num_classes=0'),
        (dict(num_classes=10, out_indices=(0, 1)), 'num_classes=10 needs the last stage'),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        PVT(**settings)


@pytest.mark.parametrize('out_indices', [(0,), (1, 2), (0, 1, 2, 3), (3,)])
def test_out_indices_choose_the_maps_and_no_later_stage_is_built(out_indices):
    model, every = nano(out_indices=out_indices).eval(), nano().eval()
    weights = {k: v for k, v in every.state_dict().items() if int(k.split('.')[0][-1]) <= out_indices[-1] + 1}
    model.load_state_dict(weights)  # strict: neither more nor fewer
    image = torch.randn(1, 3, 64, 64)
    for ours, i in zip(model(image), out_indices, strict=True):
        torch.testing.assert_close(ours, every(image)[i])


def test_every_parameter_gets_a_gradient():
    for model in (nano(), nano(out_indices=(0, 1)), nano(num_classes=5)):
        out = model(torch.randn(2, 3, 64, 64))
        sum(o.square().mean() for o in (out if isinstance(out, tuple) else [out])).backward()
        assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize('frozen_stages', range(-1, 5))
def test_frozen_stages_neither_learn_nor_drop(frozen_stages):
    model = nano(frozen_stages=frozen_stages, drop_rate=0.5, attn_drop_rate=0.5, drop_path_rate=0.5).train()
    for name, parameter in model.named_parameters():
        stage = int(name.split('.')[0][-1])
        frozen = stage <= frozen_stages or frozen_stages == 0 and name.startswith('patch_embed1')
        assert parameter.requires_grad != frozen, name
    image = torch.randn(2, 3, 64, 64)
    for i, (one, other) in enumerate(zip(model(image), model(image), strict=True)):
        assert torch.equal(one, other) == (i < frozen_stages)


def test_stochastic_depth_rises_linearly_over_all_layers():
    model = PVT('small', drop_path_rate=0.3)
    rates = [block.drop_path.drop_prob for i in range(1, 5) for block in getattr(model, f'block{i}')]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.3, 16))


def test_recomputing_layers_gives_the_same_gradients_from_less_memory():
    image = torch.randn(2, 3, 128, 128)
    gradients, kept = [], []
    for with_cp in (False, True):
        model, saved = nano(with_cp=with_cp), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t):
            loss = sum(m.square().mean() for m in model(image))
        kept.append(sum(saved))
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for with_all, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, with_all)
    assert kept[1] < 0.5 * kept[0]


def test_attention_is_the_fused_one_and_equals_the_textbooks():
    """In every stage, and without the weights ever in memory."""
    model, image = nano().eval(), torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        with torch.profiler.profile() as profile:
            fused = model(image)
        for module in model.modules():
            if isinstance(module, SpatialReductionAttention):
                module.attention_fn = textbook_attention
        with torch.profiler.profile() as textbooks_profile:
            explicit = model(image)
    names = [event.name for event in profile.events()]
    assert sum(name.startswith('aten::_scaled_dot_product_flash') for name in names) == 4
    assert 'aten::_softmax' not in names and 'aten::_scaled_dot_product_attention_math' not in names
    assert [event.name for event in textbooks_profile.events()].count('aten::_softmax') == 4
    for one, other in zip(fused, explicit, strict=True):
        torch.testing.assert_close(one, other)


def test_attention_in_bfloat16_on_a_cpu_is_made_of_products():
    """torch's fused kernel is no faster there than in float32. Training takes it, as it does not keep the weights."""
    q, k, v = (torch.randn(2, n, 4, 16, dtype=torch.bfloat16).transpose(1, 2) for n in (5000, 300, 300))
    exact = textbook_attention(*(t.double() for t in (q, k, v)))
    for training in (False, True):
        with (
            torch.set_grad_enabled(training),
            torch.autocast('cpu', torch.bfloat16),
            torch.profiler.profile() as profile,
        ):
            ours = cpu.attention(q, k, v)
        assert ours.dtype == torch.bfloat16 and ours.stride() == q.stride()
        assert (ours - exact).norm() / exact.norm() < 2**-7
        names = [event.name for event in profile.events()]
        assert names.count('aten::_softmax') == (0 if training else 2 * math.ceil(5000 / (2**20 // (4 * 300))))
        assert any('flash' in name for name in names) == training


@pytest.mark.parametrize('with_cp', [False, True])
def test_feed_forward_in_chunks_is_that_of_all_tokens(monkeypatch, with_cp):
    monkeypatch.setattr(cpu, 'CHUNK_VALUES', 700)
    images, out = torch.randn(2, 3, 64, 96), []
    for chunked in (False, True):
        model, calls = nano(num_classes=5, with_cp=with_cp, chunked=chunked), []
        for module in model.modules():
            if isinstance(module, Mlp):
                module.fc1.register_forward_hook(lambda module, args, out, calls=calls: calls.append(out.shape))
        with torch.no_grad():
            model(images)
        assert len(calls) > 40 if chunked else len(calls) == 4
        logits = model(images)
        logits.square().sum().backward()
        if not chunked:  # once forward, and once more where layers are recomputed
            assert len(calls) == 4 + (8 if with_cp else 4)
        out.append([logits, *(p.grad for p in model.parameters())])
    for whole, chunks in zip(*out, strict=True):
        torch.testing.assert_close(chunks, whole)


def test_feed_forward_in_chunks_drops_the_same_again_in_the_backward_pass(monkeypatch):
    monkeypatch.setattr(cpu, 'CHUNK_VALUES', 640)
    mlp, x = cpu.ChunkedMlp(16, 32, drop_rate=0.5), torch.randn(1, 100, 16, requires_grad=True)
    torch.manual_seed(0)
    out = mlp(x)
    out.sum().backward()
    torch.manual_seed(0)
    again = torch.cat([Mlp.forward(mlp, chunk) for chunk in x.flatten(0, 1).split(20)])
    torch.testing.assert_close(out[0], again)
    (gradient,) = torch.autograd.grad(again.sum(), x)
    torch.testing.assert_close(x.grad, gradient)


def test_without_chunks_functional_transforms_work():
    """At 256 px the chunks of stage 1 would be checkpointed, which torch.func cannot differentiate."""
    model = nano(out_indices=(0,), chunked=False)
    image = torch.randn(1, 3, 256, 256)
    params = dict(model.named_parameters())

    def loss(params):
        return torch.func.functional_call(model, params, image)[0].square().mean()

    gradients = torch.func.grad(loss)(params)
    loss(params).backward()
    for name, parameter in params.items():
        torch.testing.assert_close(gradients[name], parameter.grad)


class Allocations(TorchDispatchMode):
    """The most bytes that tensors made inside, by any operator, held at a time."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.given = [p.untyped_storage() for p in model.parameters()]
        self.made, self.peak = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and not any(tensor.untyped_storage() is s for s in self.given):
                self.made[id(tensor.untyped_storage())] = weakref.ref(tensor.untyped_storage())
        self.made = {key: storage for key, storage in self.made.items() if storage() is not None}
        self.peak = max(self.peak, sum(storage().nbytes() for storage in self.made.values()))
        return out


def test_memory_stays_far_below_that_of_hidden_values_and_attention_weights(monkeypatch):
    """A CPU's, of stage 1 at 512x512: 16,384 tokens of 64 values, 512 hidden ones and 256 weights each."""
    tokens = 4 * 16384 * 64
    images, peaks = torch.randn(1, 3, 512, 512), {}
    for name in ('ours', 'textbook'):
        model = PVT('tiny', out_indices=(0,), chunked=name == 'ours')
        if name == 'textbook':
            monkeypatch.setattr(SpatialReductionAttention, 'attention_fn', staticmethod(textbook_attention))
        with torch.no_grad(), Allocations(model) as allocations:
            model(images)
        peaks[name, 'forward'] = allocations.peak / tokens
        with Allocations(model) as allocations:
            model(images)[0].sum().backward()
        peaks[name, 'training'] = allocations.peak / tokens
    assert peaks['ours', 'forward'] < 8 < 20 < peaks['textbook', 'forward'], peaks
    assert peaks['ours', 'training'] < 20 < 60 < peaks['textbook', 'training'], peaks


def test_going_from_tokens_to_maps_copies_only_what_is_handed_out():
    """The image is laid out anew once, and each map that is handed out; nothing in between."""
    copies = []

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func in (torch.ops.aten.clone.default, torch.ops.aten.copy_.default):
                copies.append(tuple(args[0].shape))
            return func(*args, **(kwargs or {}))

    model, image = nano(out_indices=(2,)).eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad(), Copies():
        maps = model(image)
    assert copies == [tuple(image.shape), tuple(maps[0].shape)]


def test_maps_are_laid_out_as_mmcv_reads_them():
    from mmcv.ops import RoIAlign

    maps = nano().eval()(torch.randn(1, 3, 64, 64))
    rois = torch.tensor([[0.0, 4, 4, 50, 60]])
    for m in maps:
        torch.testing.assert_close(
            RoIAlign(7, 1 / 4)(m, rois), RoIAlign(7, 1 / 4)(m.clone(memory_format=torch.contiguous_format), rois)
        )


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_trains_under_autocast(dtype):
    model = nano(drop_path_rate=0.1)
    with torch.autocast('cpu', dtype):
        loss = sum(m.float().square().mean() for m in model(torch.randn(2, 3, 64, 96)))
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.slow
def test_compiles_without_a_graph_break_for_changing_sizes():
    model = nano().eval()
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, dynamic=True, backend='aot_eager')
    with torch.no_grad():
        for size in ((64, 64), (96, 128), (100, 75)):
            image = torch.randn(1, 3, *size)
            for ours, expected in zip(compiled(image), model(image), strict=True):
                torch.testing.assert_close(ours, expected)


@pytest.mark.slow
def test_compiles_with_inductor():
    model, image = nano().eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, expected in zip(torch.compile(model)(image), model(image), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmseg'])
def test_found_by_its_name_in_every_library(scope):
    import importlib

    registry = MODELS if scope == 'mmengine' else importlib.import_module(f'{scope}.registry').MODELS
    with DefaultScope.overwrite_default_scope(scope):
        assert type(registry.build(dict(type='PVT', arch='tiny'))) is PVT


def test_archs_are_the_published_ones():
    assert {name: arch['num_layers'] for name, arch in ARCHS.items()} == dict(
        tiny=(2, 2, 2, 2), small=(3, 4, 6, 3), medium=(3, 4, 18, 3), large=(3, 8, 27, 3)
    )


def test_unpretrained_weights_start_from_a_truncated_normal():
    model = PVT('tiny', num_classes=10)
    for name, parameter in model.named_parameters():
        if 'pos_embed' in name or name == 'cls_token' or name.endswith(('q.weight', 'fc1.weight', 'head.weight')):
            assert abs(parameter.std() - 0.02) < 2e-3, name
    assert all(m.bias.eq(0).all() for m in model.modules() if isinstance(m, nn.Linear))
