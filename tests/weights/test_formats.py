import contextlib
import itertools
import random

import pytest
import torch
from mmdet.models.backbones import PyramidVisionTransformer, PyramidVisionTransformerV2
from mmdet.models.backbones.pvt import pvt_convert
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pvt_mm.commands.get_flops import build_model
from pvt_mm.errors import CheckpointError
from pvt_mm.models import PVT, ColumnarViT, PVTv2
from pvt_mm.weights import formats
from pvt_mm.weights.formats import (
    FORMATS,
    convert_backbones,
    find_backbones,
    format_of,
    from_published,
    identify,
    strip_wrappers,
    to_published,
)
from tests.common import ROOT
from tests.parity import formula_images, formula_weights, relative_error

ARCHS = {
    'small': dict(embed_dims=(8, 16, 40, 64), num_layers=(1, 2, 1, 2)),
    'wide': dict(embed_dims=(16, 32, 80, 128), num_layers=(2, 1, 3, 1)),
}
SIZES = [('small', 64), ('wide', 96)]
PVT_FORMATS = formats.PVT.formats


def arch_of(name: str) -> dict:
    return dict(
        ARCHS[name], num_heads=(1, 2, 5, 8), mlp_ratios=(8, 8, 4, 4), sr_ratios=(8, 4, 2, 1), patch_sizes=(4, 2, 2, 2)
    )


def published(name: str = 'small', img_size: int | tuple[int, int] = 64, num_classes: int | None = 7) -> dict:
    """Weights under their published names."""
    return formula_weights(PVT(arch_of(name), img_size, num_classes=num_classes))


def ours(weights: dict, name: str, img_size: int, num_classes: int | None = None) -> nn.Module:
    model = PVT(arch_of(name), img_size, num_classes=num_classes)
    own = model.state_dict()
    model.load_state_dict({key: value for key, value in weights.items() if key in own})
    return model.eval().double()


def mmdets(name: str, img_size: int) -> nn.Module:
    dims = ARCHS[name]['embed_dims']
    model = PyramidVisionTransformer(img_size, embed_dims=dims[0], num_layers=ARCHS[name]['num_layers'])
    return model.eval().double()


def hugging_faces(name: str, img_size: int) -> nn.Module:
    transformers = pytest.importorskip('transformers')
    dims, depths = ARCHS[name].values()
    config = transformers.PvtConfig(
        image_size=img_size,
        hidden_sizes=dims,
        depths=depths,
        mlp_ratios=[8, 8, 4, 4],
        num_labels=7,
    )
    return transformers.PvtForImageClassification(config).eval().double()


def picture(height: int, width: int | None = None) -> Tensor:
    """Two images. All is compared in float64: what is left is the other eps of mmdet's and transformers' LayerNorm."""
    return formula_images(2, height, width or height).double()


def with_eps(model: nn.Module, eps: float) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = eps
    return model


def errors(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> list[float]:
    return [relative_error(mine, other.numpy()) for mine, other in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize('name, img_size', SIZES)
@torch.no_grad()
def test_mmdets_port_computes_what_our_weights_compute(name, img_size):
    weights = published(name, img_size)
    theirs = mmdets(name, img_size)
    converted, lost = from_published(weights, 'mmdet')
    theirs.load_state_dict(converted)
    assert lost == ['cls_token', 'norm.weight', 'norm.bias', 'head.weight', 'head.bias', 'pos_embed4[:, 0]']
    mine = ours(weights, name, img_size)
    for image in (picture(img_size), picture(64, 128)):
        assert max(errors(mine(image), theirs(image))) < 1e-4
    with_eps(mine, 1e-6)
    assert max(errors(mine(image), theirs(image))) < 1e-6


@pytest.mark.parametrize('name, img_size', SIZES)
@torch.no_grad()
def test_ours_computes_what_mmdets_weights_compute(name, img_size):
    theirs = mmdets(name, img_size)
    theirs.load_state_dict(formula_weights(theirs))
    weights, lost = to_published(theirs.state_dict())
    assert not lost
    mine = ours(weights, name, img_size)
    assert mine.state_dict().keys() == weights.keys()
    assert mine.pos_embed4[:, 0].eq(0).all()
    image = picture(img_size)
    assert max(errors(mine(image), theirs(image))) < 1e-4
    assert max(errors(with_eps(mine, 1e-6)(image), theirs(image))) < 1e-6


@pytest.mark.parametrize('name, img_size', SIZES)
@torch.no_grad()
def test_transformers_classifier_computes_what_our_weights_compute(name, img_size):
    weights = published(name, img_size)
    theirs = hugging_faces(name, img_size)
    converted, lost = from_published(weights, 'huggingface')
    theirs.load_state_dict(converted)
    assert not lost
    image = picture(img_size)  # transformers 5.24 fails at any size but the model's own
    mine = ours(weights, name, img_size, num_classes=7)
    assert max(errors([mine(image)], [theirs(image).logits])) < 1e-4
    with_eps(mine, 1e-6)
    assert max(errors([mine(image)], [theirs(image).logits])) < 1e-6


@pytest.mark.parametrize('name, img_size', SIZES)
@torch.no_grad()
def test_ours_computes_what_transformers_weights_compute(name, img_size):
    theirs = hugging_faces(name, img_size)
    theirs.load_state_dict(formula_weights(theirs))
    weights, lost = to_published(theirs.state_dict())
    assert not lost
    mine = ours(weights, name, img_size, num_classes=7)
    assert mine.state_dict().keys() == weights.keys()
    image = picture(img_size)
    assert max(errors([mine(image)], [theirs(image).logits])) < 1e-4
    assert max(errors([with_eps(mine, 1e-6)(image)], [theirs(image).logits])) < 1e-6


def test_our_map_to_mmdet_is_mmdets_own():
    weights = published(img_size=224)  # the size that pvt_convert knows
    converted, _ = from_published(weights, 'mmdet')
    theirs = pvt_convert(weights)
    assert converted.keys() == theirs.keys()
    assert all(torch.equal(converted[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize('form', PVT_FORMATS)
def test_there_and_back_gives_the_same_weights(form):
    weights = published()
    converted, lost = from_published(weights, form)
    assert format_of(converted) == form
    back, foreign = to_published(converted)
    assert not foreign
    lost = {key.removesuffix('[:, 0]') for key in lost}
    assert back.keys() | lost == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in back.keys() - lost)
    assert torch.equal(back['pos_embed4'][:, 1:], weights['pos_embed4'][:, 1:])


def test_a_zero_class_row_is_no_loss():
    weights = published(num_classes=None)
    weights['pos_embed4'][:, 0] = 0
    assert from_published(weights, 'mmdet')[1] == []


@pytest.mark.parametrize('img_size', [(64, 96), (96, 224), (200, 333), (256, 1024), (800, 1333)])
def test_the_class_row_is_found_whatever_the_grid(img_size):
    with torch.device('meta'):
        shapes = {key: value.shape for key, value in PVT('tiny', img_size).state_dict().items()}
    weights = {key: torch.ones(shape[:2] + (8,) if 'pos_embed' in key else shape) for key, shape in shapes.items()}
    converted, lost = from_published(weights, 'mmdet')
    assert lost == ['pos_embed4[:, 0]']
    assert converted['layers.3.1.0.pos_embed'].shape[1] == shapes['pos_embed4'][1] - 1


def test_fewer_stages_have_no_class_row_to_lose():
    weights = formula_weights(PVT('tiny', 64, out_indices=(0, 1, 2)))
    converted, lost = from_published(weights, 'mmdet')
    assert not lost and torch.equal(converted['layers.2.1.0.pos_embed'], weights['pos_embed3'])


def test_a_model_without_classifier_of_transformers_has_no_pvt_before_its_names():
    theirs = hugging_faces('small', 64)
    bare, lost = to_published(theirs.pvt.state_dict())
    whole, _ = to_published(theirs.state_dict())
    assert not lost and whole.keys() - bare.keys() == {'head.weight', 'head.bias'}
    assert all(torch.equal(bare[key], whole[key]) for key in bare)


def test_what_has_no_place_is_named():
    mmdet, _ = from_published(published(), 'mmdet')
    strangers = {
        'layers.0.1.0.norm1.weight': torch.ones(8),  # PVTv2's first layer
        'layers.9.1.1.norm1.weight': torch.ones(8),
        'bbox_head.weight': torch.ones(8),
        'steps': torch.tensor(3),
    }
    assert to_published(mmdet | strangers)[1] == list(strangers)
    mmdet['layers.0.1.1.attn.attn.in_proj_bias'] = torch.ones(25)  # no three vectors
    mmdet['layers.1.1.0.pos_embed'] = torch.ones(3)
    weights, lost = to_published(mmdet)
    assert lost == ['layers.0.1.1.attn.attn.in_proj_bias', 'layers.1.1.0.pos_embed']
    assert 'block1.0.attn.q.bias' not in weights and 'pos_embed2' not in weights


def test_a_tensor_is_not_put_together_from_parts_that_do_not_fit():
    weights = published()
    del weights['block2.1.attn.q.weight']
    weights['block2.0.attn.q.weight'] = torch.ones(16, 3)  # another width than that of kv
    converted, lost = from_published(weights, 'mmdet')
    assert {'block2.0.attn.q.weight', 'block2.0.attn.kv.weight', 'block2.1.attn.kv.weight'} <= set(lost)
    assert not {f'layers.1.1.{i}.attn.attn.in_proj_weight' for i in (1, 2)} & converted.keys()


@pytest.mark.parametrize('form', PVT_FORMATS)
def test_odd_shapes_and_gaps_are_named_and_raise_nothing_else(form):
    choose = random.Random(0)
    whole, _ = from_published(published(num_classes=None), form)
    for _ in range(50):
        weights = dict(whole)
        for key in choose.sample(sorted(weights), 6):
            shape = [choose.choice([0, 1, 3, 8, 16, 24]) for _ in range(choose.randrange(5))]
            weights[key] = torch.ones(shape)
        del weights[choose.choice(sorted(weights))]
        for to in PVT_FORMATS:
            with contextlib.suppress(CheckpointError):
                _, lost = convert_backbones(weights, to)
                assert {key.removesuffix('[:, 0]') for key in lost} <= weights.keys()


def test_each_format_is_known_from_its_keys():
    weights = published()
    for form in PVT_FORMATS:
        assert format_of(from_published(weights, form)[0]) == form
    assert format_of([]) is None
    with pytest.raises(CheckpointError, match=r'name no PVT or PVTv2 in a known format \(published, mmdet, '):
        to_published({'conv1.weight': torch.ones(1)})


def test_two_formats_at_once_raise_with_both_names():
    weights = published()
    both = weights | from_published(weights, 'mmdet')[0]
    for call in (format_of, find_backbones, to_published):
        with pytest.raises(CheckpointError, match='two formats, published and mmdet'):
            call(both)


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.', 'model.', '_orig_mod.backbone.', 'a.pvt.b.'])
@pytest.mark.parametrize('form', PVT_FORMATS)
def test_backbones_are_found_under_any_prefix(prefix, form):
    weights, _ = from_published(published(), form)
    keys = [prefix + key for key in weights] + ['neck.lateral_convs.0.conv.weight', 'bbox_head.pos_embed']
    assert find_backbones(keys) == {prefix: form}


def test_all_backbones_of_a_file_are_found():
    weights = published()
    keys = [f'student.backbone.{key}' for key in weights]
    keys += [f'teacher.backbone.{key}' for key in from_published(weights, 'mmdet')[0]]
    keys += [f'decoder.{key}' for key in from_published(weights, 'huggingface')[0]]
    assert find_backbones(keys) == {
        'student.backbone.': 'published',
        'teacher.backbone.': 'mmdet',
        'decoder.': 'huggingface',
    }
    assert find_backbones(['neck.weight', 'pos_embed1']) == {}


V2 = dict(
    embed_dims=(8, 16, 40, 64),
    num_layers=(1, 2, 1, 2),
    num_heads=(1, 2, 5, 8),
    mlp_ratios=(8, 8, 4, 4),
    sr_ratios=(8, 4, 2, 1),
    patch_sizes=(7, 3, 3, 3),
    strides=(4, 2, 2, 2),
    linear=(False,) * 4,
)
LINEAR = dict(V2, linear=(True,) * 4)


def published_v2(arch: dict = V2, num_classes: int | None = 7) -> dict:
    return formula_weights(PVTv2(arch, num_classes=num_classes))


def ours_v2(arch: dict = V2, weights: dict | None = None, **kwargs) -> nn.Module:
    model = PVTv2(arch, **kwargs)
    model.load_state_dict(weights or formula_weights(model))
    return model.eval().double()


def mmdets_v2() -> nn.Module:
    return PyramidVisionTransformerV2(embed_dims=8, num_layers=V2['num_layers']).eval().double()


def hugging_faces_v2(linear: bool) -> nn.Module:
    transformers = pytest.importorskip('transformers')
    config = transformers.PvtV2Config(
        hidden_sizes=V2['embed_dims'], depths=V2['num_layers'], linear_attention=linear, num_labels=7
    )
    return transformers.PvtV2ForImageClassification(config).eval().double()


def timms(key: str) -> str:
    """What timm 1.0's ``PyramidVisionTransformerV2`` calls a published PVTv2 weight (``timm/models/pvt_v2.py``)."""
    part, _, rest = key.partition('.')
    name, stage = part.rstrip('1234'), int(part[-1]) - 1 if part[-1].isdigit() else None
    where = {
        'patch_embed': f'stages.{stage}.downsample' if stage else 'patch_embed',
        'block': f'stages.{stage}.blocks',
        'norm': f'stages.{stage}.norm',
        'head': 'head',
    }[name]
    return f'{where}.{rest.replace("dwconv.dwconv", "dwconv")}'


@torch.no_grad()
def test_mmdets_pvt_v2_computes_what_our_weights_compute_and_back():
    theirs = mmdets_v2()
    converted, lost = from_published(published_v2(), 'mmdet')
    theirs.load_state_dict(converted)
    assert lost == ['head.weight', 'head.bias']
    known_there = pvt_convert(published_v2())
    assert converted.keys() == known_there.keys()
    assert all(torch.equal(converted[key], value) for key, value in known_there.items())
    mine = PVTv2(V2).eval().double()
    mine.load_state_dict(theirs.state_dict())  # as it is: PVTv2 converts what it is given
    for image in (picture(64), picture(72, 100)):
        assert max(errors(mine(image), theirs(image))) < 1e-4
    assert max(errors(with_eps(mine, 1e-6)(image), theirs(image))) < 1e-6


@pytest.mark.parametrize('arch', [V2, LINEAR])
@torch.no_grad()
def test_transformers_pvt_v2_computes_what_our_weights_compute_and_back(arch):
    weights = published_v2(arch)
    theirs = hugging_faces_v2(arch is LINEAR)
    converted, lost = from_published(weights, 'huggingface')
    theirs.load_state_dict(converted)
    assert not lost
    mine = ours_v2(arch, theirs.state_dict(), num_classes=7)
    maps = with_eps(ours_v2(arch, theirs.pvt_v2.state_dict()), 1e-6)  # a backbone alone has no pvt_v2 before its names
    for image in (picture(64), picture(72, 100)):
        out = theirs(image, output_hidden_states=True)
        assert max(errors([mine(image)], [out.logits])) < 1e-4
        assert max(errors(maps(image), out.hidden_states)) < 1e-6
    assert max(errors([with_eps(mine, 1e-6)(image)], [out.logits])) < 1e-6


@pytest.mark.parametrize('arch', [V2, LINEAR])
def test_timms_names_are_those_of_its_source(arch):
    weights = published_v2(arch)
    converted, lost = from_published(weights, 'timm')
    assert not lost and converted.keys() == {timms(key) for key in weights}
    assert all(torch.equal(converted[timms(key)], value) for key, value in weights.items())
    assert {'patch_embed.proj.weight', 'stages.0.norm.weight', 'stages.3.downsample.norm.bias'} <= converted.keys()
    assert {'stages.1.blocks.1.attn.kv.weight', 'stages.0.blocks.0.mlp.dwconv.bias', 'head.bias'} <= converted.keys()
    ours_v2(arch, converted, num_classes=7)  # which raises unless all fits


@pytest.mark.parametrize('form', FORMATS)
def test_pvt_v2_there_and_back_gives_the_same_weights(form):
    weights = published_v2(num_classes=None)
    converted, lost = from_published(weights, form)
    assert not lost and identify(converted) == (formats.PVT_V2, form)
    back, lost = to_published(converted)
    assert not lost and back.keys() == weights.keys()
    assert all(torch.equal(back[key], value) for key, value in weights.items())
    keys = [f'module.backbone.{key}' for key in converted] + ['neck.weight', 'bbox_head.norm1.weight']
    assert find_backbones(keys) == {'module.backbone.': form}


def test_what_a_format_lacks_is_an_error_that_says_so():
    with pytest.raises(CheckpointError, match='mmdet has no PVTv2 with linear attention'):
        from_published(published_v2(LINEAR), 'mmdet')
    with pytest.raises(CheckpointError, match='timm has no PVT: it can be converted to published, mmdet, huggingface'):
        from_published(published(), 'timm')
    both = published_v2() | from_published(published_v2(), 'timm')[0]
    with pytest.raises(CheckpointError, match='a PVTv2 in two formats, published and timm'):
        identify(both)


def test_another_familys_weights_are_not_given_a_models_names():
    with torch.device('meta'):
        models = PVT('tiny', 64), ColumnarViT()
    for form, model in itertools.product(FORMATS, models):
        weights, _ = from_published(published_v2(num_classes=None), form)
        given = dict(weights)
        model._rename(given, '', None)
        assert given.keys() == weights.keys()


@torch.no_grad()
def test_a_detector_of_mmdets_zoo_with_pvt_v2_detects_as_ours():
    theirs = build('mmdet::pvt/retinanet_pvtv2-b0_fpn_1x_coco.py')
    theirs.load_state_dict(formula_weights(theirs))
    mine = build(str(ROOT / 'configs/retinanet/pvt_v2_b0_1x.py'))
    mine.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 96, 160)
    for ours, other in zip(mine(image), theirs(image), strict=True):  # classes and boxes
        assert max(errors(ours, other)) < 1e-4
    again, lost = convert_backbones(mine.state_dict(), 'mmdet')
    assert not lost and again.keys() == theirs.state_dict().keys()


def build(config: str) -> nn.Module:
    """The detector of a config, without its pretrained weights."""
    cfg = get_config(config) if '::' in config else Config.fromfile(config)
    init_default_scope('mmdet')
    cfg.model.backbone.pop('init_cfg')
    return MODELS.build(cfg.model).eval()


@torch.no_grad()
def test_a_detector_of_mmdets_zoo_detects_as_ours():
    theirs = build('mmdet::pvt/retinanet_pvt-t_fpn_1x_coco.py')
    theirs.load_state_dict(formula_weights(theirs))
    weights, lost = convert_backbones(theirs.state_dict(), 'published')
    assert not lost
    mine = build(str(ROOT / 'configs/retinanet/pvt_tiny_1x.py'))
    mine.load_state_dict(theirs.state_dict())  # as it is: PVT converts what it is given
    assert all(torch.equal(mine.state_dict()[key], value) for key, value in weights.items())
    image = torch.randn(1, 3, 96, 160)
    for ours, other in zip(mine(image), theirs(image), strict=True):  # classes and boxes
        assert max(errors(ours, other)) < 1e-4
    again, lost = convert_backbones(mine.state_dict(), 'mmdet')
    assert not lost
    assert again.keys() == theirs.state_dict().keys()
    assert all(torch.equal(again[key], value) for key, value in theirs.state_dict().items())


def names(prefix: str, *layers: str, kinds: tuple[str, ...] = ('weight', 'bias')) -> set[str]:
    return {f'{prefix}.{layer}.{kind}' for layer in layers for kind in kinds}


FPN = ('lateral_convs.{}.conv', 'fpn_convs.{}.conv')
NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
SCALES = ('0.0', '1.0', '2.0', '2.2', '3.0', '3.2', '3.4')  # an upsampling stands between two convolutions
# The names of necks and heads in mmdet 2.8 and mmsegmentation 0.13, with which the published models were trained.
OLD_NAMES = {
    'retinanet/pvt_tiny_1x.py': names(
        'neck', *(FPN[0].format(i) for i in range(3)), *(FPN[1].format(i) for i in range(5))
    )
    | names(
        'bbox_head',
        *(f'{part}_convs.{i}.conv' for part in ('cls', 'reg') for i in range(4)),
        'retina_cls',
        'retina_reg',
    ),
    'mask_rcnn/pvt_tiny_1x.py': names('neck', *(name.format(i) for name in FPN for i in range(4)))
    | names('rpn_head', 'rpn_conv', 'rpn_cls', 'rpn_reg')
    | names('roi_head.bbox_head', 'shared_fcs.0', 'shared_fcs.1', 'fc_cls', 'fc_reg')
    | names('roi_head.mask_head', *(f'convs.{i}.conv' for i in range(4)), 'upsample', 'conv_logits'),
    'semantic_fpn/pvt_tiny_80k.py': names('neck', *(name.format(i) for name in FPN for i in range(4)))
    | names('decode_head.scale_heads', *(f'{i}.conv' for i in SCALES), kinds=('weight',))
    | names('decode_head.scale_heads', *(f'{i}.bn' for i in SCALES), kinds=NORM)
    | names('decode_head', 'conv_seg'),
}


@pytest.mark.parametrize('config', OLD_NAMES)
def test_necks_and_heads_have_the_names_of_mmdet_2_and_mmseg_0(config):
    model = build_model(Config.fromfile(ROOT / 'configs' / config))
    assert {key for key in model.state_dict() if not key.startswith('backbone.')} == OLD_NAMES[config]


def test_each_backbone_of_a_file_is_converted():
    weights = published(num_classes=None)
    mmdet, _ = from_published(weights, 'mmdet')
    converted, lost = convert_backbones(weights | {f'teacher.{key}': value for key, value in mmdet.items()}, 'mmdet')
    assert lost == ['pos_embed4[:, 0]']
    assert converted.keys() == mmdet.keys() | {f'teacher.{key}' for key in mmdet}


def test_metadata_of_what_keeps_its_name_stays():
    model = nn.ModuleDict(dict(backbone=PVT(arch_of('small'), 64), neck=nn.BatchNorm2d(2)))
    weights, _ = convert_backbones(model.state_dict(), 'mmdet')
    assert weights._metadata.keys() == {'', 'backbone', 'neck'}
    assert weights._metadata['neck'] == {'version': 2}


def test_a_file_of_hugging_face_holds_one_backbone_alone():
    weights = published(num_classes=None)
    detector = {f'backbone.{key}': value for key, value in weights.items()} | {'neck.weight': torch.ones(1)}
    converted, lost = convert_backbones(detector, 'huggingface')
    assert lost == ['neck.weight']
    assert converted.keys() == from_published(weights, 'huggingface')[0].keys()
    detector |= {f'teacher.{key}': value for key, value in weights.items()}
    with pytest.raises(CheckpointError, match='several PVTs, under backbone., teacher.'):
        convert_backbones(detector, 'huggingface')
    with pytest.raises(CheckpointError, match='name no PVT or PVTv2 in a known format'):
        convert_backbones({'neck.weight': torch.ones(1)}, 'mmdet')


@pytest.mark.parametrize(
    'wrap',
    [
        lambda model: model,
        torch.compile,
        nn.DataParallel,
        AveragedModel,
        lambda model: nn.ModuleDict(dict(model=torch.compile(nn.DataParallel(model)))),
    ],
)
def test_names_and_metadata_lose_what_wrappers_add(wrap):
    model = nn.ModuleDict(dict(backbone=PVT(arch_of('small'), 64), neck=nn.BatchNorm2d(2)))
    wrapped = wrap(model).state_dict()
    weights = strip_wrappers(wrapped)
    counters = {'n_averaged'} & wrapped.keys()
    assert weights.keys() == model.state_dict().keys() | counters
    assert weights._metadata == model.state_dict()._metadata


def test_a_prefix_that_not_all_weights_have_is_no_wrapper():
    weights = {'model.conv.weight': torch.ones(2), 'module.conv.weight': torch.ones(2)}
    assert strip_wrappers(weights) == weights
    weights = {'module.steps': torch.ones(2), 'steps': torch.tensor(1)}  # cutting would lose one
    assert strip_wrappers(weights) == weights


@pytest.mark.parametrize('spell', [lambda key: key.replace('.', '_'), lambda key: key])
def test_copies_of_a_moving_average_are_left_out_and_counted(spell, caplog):
    weights = published()
    copies = {f'ema_{spell(key)}': torch.zeros(1) for key in weights}
    logger = MMLogger.get_instance('test_formats')
    logger.addHandler(caplog.handler)
    try:
        stripped = strip_wrappers(copies | weights)
    finally:
        logger.removeHandler(caplog.handler)
    assert list(stripped) == list(weights) and all(stripped[key] is weights[key] for key in weights)
    assert f'{len(copies)} copies of a moving average left out (ema_pos_embed1' in caplog.text


def test_a_file_of_the_moving_average_alone_is_used():
    weights = published()
    averaged = {f'ema_model.module.{key}': value for key, value in weights.items()} | {'steps': torch.tensor(9)}
    assert list(strip_wrappers(averaged)) == [*weights, 'steps']
