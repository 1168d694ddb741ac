"""Every row of the paper's tables against ``paper/paper.yml``, the one copy of its figures and recipes."""

import copy
import functools
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from torch import nn

from paper import rows
from paper.rows import CONFIGS, Row, paper, recipe, table_rows
from pvt_mm.commands.checks import check_testing, check_training
from pvt_mm.commands.get_flops import build_model, count_multiply_adds, count_parameters
from pvt_mm.commands.launch import dicts
from pvt_mm.models import PVT

ALL = {row.key: row for table in paper()['tables'] for row in table_rows(table)}
ROWS = {key: row for key, row in ALL.items() if not row.needs_mmpretrain}  # the others: test_classification.py
EPOCH = 7330  # the 117,266 images of train2017 with objects, 16 at a time

# mmseg's ResNet18 with the deep stem, FPN and head has 15.446 M parameters: 15.4, where the paper's table has 15.5.
# Those of PVTv2 are up to 0.06 above the counted ones: the published table seems to round up.
COUNTED = {
    'semantic_fpn/r18_80k': 15.4,
    'retinanet/pvt_v2_b0_1x': 12.9,
    'retinanet/pvt_v2_b1_1x': 23.7,
    'mask_rcnn/pvt_v2_b0_1x': 23.4,
    'semantic_fpn/pvt_v2_b0_40k': 7.5,
    'trans2seg/deeplabv3plus_r50_d8_40k': 26.7,
    'trans2seg/deeplabv3plus_r50_d16_40k': 26.7,
}
# The paper has 279.6. Counted in the same way as PVT-Small's 304.2 of this table, it is 259.5 (without blocks 259.3).
# With a stem of 128 channels, for which mmseg has no ImageNet weights, DeepLabV3+ takes the table's 120.5 and 45.5
# within 0.5 %. Trans2Seg's 31.6 and 79.3 could not be met.
COUNTED_GFLOPS = {
    'mask_rcnn/r50_gc_1x': 259.5,
    'trans2seg/deeplabv3plus_r50_d8_40k': 114.3,
    'trans2seg/deeplabv3plus_r50_d16_40k': 39.5,
    'trans2seg/r50_d16_40k': 64.5,
    'trans2seg/pvt_small_40k': 37.7,
}


@functools.cache
def load(key: str) -> Config:
    return Config.fromfile(CONFIGS / f'{key}.py')


@functools.cache
def build(key: str) -> nn.Module:
    return build_model(load(key))


@pytest.fixture(params=ROWS)
def row(request) -> Row:
    return ROWS[request.param]


def test_every_config_of_a_row_is_in_the_papers_tables():
    files = {f'{path.parent.name}/{path.stem}' for path in CONFIGS.glob('[!_]*/*.py') if 'digits' not in path.stem}
    templates = {file for file in files if file.startswith('custom/')}  # for people's own data
    assert files - templates == set(ALL)


def test_a_row_of_another_family_gets_no_recipe_and_no_weights_of_pvts(monkeypatch):
    """Its name begins as theirs."""
    settings = dict(
        paper(),
        families=dict(paper()['families'], PVTX=dict(counterpart='pvt_x_nano_digits', ms_per_gflop=0.3)),
        backbones=dict(paper()['backbones'], pvt_x_b2=dict(title='PVTX-B2', family='PVTX', size='b2', weights=None)),
        tables=dict(
            more=dict(paper()['tables']['table2'], rows=dict(pvt_x_b2_1x=dict(backbone='pvt_x_b2', schedule='1x')))
        ),
    )
    monkeypatch.setattr(rows, 'paper', lambda: settings)
    (row,) = table_rows('more')
    assert row.key == 'retinanet/pvt_x_b2_1x' and row.counterpart == 'pvt_x_nano_digits'
    assert recipe(row)['epochs'] == 12 and recipe(row)['weights'] is None
    assert not {'optimizer', 'lr', 'weight_decay', 'drop_path_rate'} & set(recipe(row))


def test_the_checks_before_a_run_have_nothing_to_say(row, tmp_path, monkeypatch):
    monkeypatch.setattr('shutil.disk_usage', lambda place: SimpleNamespace(free=1e12))
    cfg, lines = Config(copy.deepcopy(load(row.key).to_dict())), []
    cfg.work_dir = str(tmp_path)
    check_training(cfg, padding=True, log=lines.append)
    check_testing(cfg)
    assert lines == []


def test_parameters_are_those_of_the_paper(row):
    if row.params is None:
        return
    if row.system == 'trans2seg':  # whose table counts these layers only, those that nobody reads included
        kinds = nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm
        layers = [module for module in build(row.key).modules() if isinstance(module, kinds)]
        counted = sum(parameter.numel() for layer in layers for parameter in layer.parameters()) / 1e6
    else:
        counted = sum(trainable for _, trainable in count_parameters(build(row.key)).values()) / 1e6
    assert round(counted, 1) == COUNTED.get(row.key, row.params)


def test_the_deeper_and_the_wider_classifier_have_the_papers_parameters():
    for row in table_rows('wider'):
        with torch.device('meta'):
            model = PVT(load(row.key).model.backbone.arch, num_classes=1000)
        assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == row.classifier['params']


@pytest.mark.parametrize('table', ['table4', 'trans2seg', 'cost', 'nonlocal', 'v2_semantic_fpn', 'v2_gfl'])
def test_multiply_adds_are_those_of_the_paper(table):
    for row in table_rows(table):
        if row.gflops is None:
            continue
        gflops = sum(count_multiply_adds(build(row.key), tuple(row.shape)).values()) / 1e9
        assert gflops == pytest.approx(COUNTED_GFLOPS.get(row.key, row.gflops), rel=0.01), row.key


def test_optimizer(row):
    cfg, expected = load(row.key), recipe(row)
    model = build(row.key)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    groups = wrapper.optimizer.param_groups
    assert type(wrapper.optimizer).__name__ == expected['optimizer']
    names = {id(p): name for name, p in model.named_parameters()}
    for group in groups:  # norms and biases decay too, unless the recipe says otherwise
        spared = {expected.get('no_decay', 'nothing') in names[id(p)] for p in group['params']}
        assert len(spared) == 1 and group['weight_decay'] == (0 if spared == {True} else expected['weight_decay'])
    assert {group.get('momentum') for group in groups} == {expected.get('momentum')}
    assert {id(p) for group in groups for p in group['params']} >= {
        id(p) for p in model.parameters() if p.requires_grad
    }
    in_backbone = {id(p) for p in model.backbone.parameters()}
    for group in groups:
        for parameter in group['params']:
            slower = id(parameter) in in_backbone and 'backbone_lr' in expected
            assert group['lr'] == pytest.approx(expected['backbone_lr' if slower else 'lr'])
    assert (wrapper.clip_grad_kwargs or {}).get('max_norm') == expected['clip_grad']
    assert cfg.train_dataloader.batch_size == expected['batch_per_gpu']
    assert cfg.auto_scale_lr.base_batch_size == expected['scale_lr_base'] and not cfg.auto_scale_lr.get('enable')


def test_length_and_learning_rate_at_given_iterations(row):
    cfg, expected = load(row.key), recipe(row)
    init_default_scope(cfg.default_scope)
    if 'epochs' in expected:
        assert cfg.train_cfg.type == 'EpochBasedTrainLoop' and cfg.train_cfg.max_epochs == expected['epochs']
        length = EPOCH * expected['epochs']
        moments = {0, 250, 499, 500, *(EPOCH * epoch + i for epoch in expected['steps'] for i in (-1, 0)), length - 1}
    else:
        assert cfg.train_cfg.type == 'IterBasedTrainLoop' and cfg.train_cfg.max_iters == expected['iterations']
        length = expected['iterations']
        moments = {0, 1, length // 4, length // 2, length - 1}
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [PARAM_SCHEDULERS.build(dict(settings, optimizer=optimizer)) for settings in cfg.param_scheduler]
    for iteration in range(length):
        if iteration in moments:
            assert optimizer.param_groups[0]['lr'] == pytest.approx(
                learning_rate(iteration, expected), rel=1e-5, abs=1e-12
            )
        if iteration > 600 and 'epochs' in expected and (iteration + 1) % EPOCH:
            continue  # the warm-up is over: all that is left happens at the end of an epoch
        optimizer.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch or (iteration + 1) % EPOCH == 0:
                scheduler.step()


def learning_rate(iteration: int, expected: dict) -> float:
    """By the paper, the learning rate of an iteration, counted from 0."""
    if expected['power']:
        left = 1 - iteration / (expected['iterations'] - 1)
        return expected['final_lr'] + (expected['lr'] - expected['final_lr']) * left ** expected['power']
    warm_up = 1.0
    if expected['warm_up']:
        warm_up = min(1, 0.001 + 0.999 * iteration / (expected['warm_up'] - 1))
    return expected['lr'] * warm_up * 0.1 ** sum(iteration >= EPOCH * step for step in expected['steps'])


def test_training_images(row):
    cfg, expected = load(row.key), recipe(row)
    pipeline = {settings.type: settings for settings in cfg.train_dataloader.dataset.pipeline}
    shorts, long = expected['train_short'], expected['train_long']
    if 'crop_range' in expected:
        (whole,), (smaller, crop, resize) = pipeline['RandomChoice'].transforms
        assert 'prob' not in pipeline['RandomChoice'] and whole == resize and smaller.keep_ratio
        assert sorted(tuple(sorted(scale)) for scale in resize.scales) == [(short, long) for short in shorts]
        assert sorted(tuple(sorted(scale)) for scale in smaller.scales) == [(n, long) for n in expected['crop_short']]
        assert crop.crop_type == 'absolute_range' and list(crop.crop_size) == expected['crop_range']
        assert crop.allow_negative_crop
    elif row.system == 'detr':
        assert sorted(map(tuple, pipeline['RandomChoiceResize'].scales)) == [(long, short) for short in shorts]
        resize = pipeline['RandomChoiceResize']
    elif len(shorts) == 2 or 'ratio_range' in expected:
        resize = pipeline['RandomResize']
        scales = [resize.scale] if 'ratio_range' in expected else resize.scale
        assert [tuple(scale) for scale in scales] == [(long, short) for short in shorts]
        assert list(resize.get('ratio_range') or []) == expected.get('ratio_range', [])
    else:
        resize = pipeline['Resize']
        assert tuple(resize.scale) == (long, shorts[0])
    assert resize.keep_ratio
    assert pipeline['RandomFlip'].prob == expected['flip']
    assert ('RandomCrop' in pipeline) == ('crop' in expected)
    if 'crop' in expected:
        assert tuple(pipeline['RandomCrop'].crop_size) == (expected['crop'], expected['crop'])
        assert pipeline['RandomCrop'].cat_max_ratio == expected['cat_max_ratio']
        assert tuple(cfg.model.data_preprocessor.size) == (expected['crop'], expected['crop'])
    assert ('PhotoMetricDistortion' in pipeline) == expected.get('photometric', False)
    assert cfg.model.data_preprocessor.get('pad_size_divisor') == expected.get('pad_divisor')
    assert pipeline['LoadAnnotations'].get('with_mask', False) == row.system.endswith('mask_rcnn')
    assert pipeline['LoadAnnotations'].get('reduce_zero_label', False) == (cfg.default_scope == 'mmseg')


def test_test_images(row):
    cfg, expected = load(row.key), recipe(row)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        resizes = [settings for settings in loader.dataset.pipeline if 'Resize' in settings.type]
        assert tuple(resizes[0].scale) == tuple(reversed(expected['test_scale'])) and resizes[0].keep_ratio
        assert [settings.get('size_divisor') for settings in resizes[1:]] == (
            [expected['test_multiple']] if 'test_multiple' in expected else []
        )


def test_the_320k_row_is_tested_at_several_scales_and_flipped():
    scales, multiple, flips, *_ = load('semantic_fpn/pvt_large_320k').tta_pipeline[1].transforms
    assert [tuple(scale.scale) for scale in scales] == [(256 * n, 64 * n) for n in range(4, 15, 2)]
    assert [(t.type, t.size_divisor) for t in multiple] == [('ResizeToMultiple', 32)]
    assert sorted(flip.prob for flip in flips) == [0, 1]


def test_model_is_frozen_pretrained_and_sized_as_the_paper_says(row):
    cfg, expected = load(row.key), recipe(row)
    model = build(row.key)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    frozen -= {name for name in frozen if 'blocks_decoder' in name}  # Trans2Seg's, which nobody reads
    if row.key == 'detr/r50_50e':  # DETR's ResNet keeps every norm as it is
        frozen -= {name for name in frozen if '.bn' in name or '.downsample.1' in name}
        assert {name.split('.')[1] for name in frozen} == {'conv1', 'layer1'}
    else:
        assert {name.split('.')[1] for name in frozen} == set(expected['frozen'])
    assert all(name.startswith('backbone.') for name in frozen)
    classes = {settings['num_classes'] for settings in dicts(cfg.model) if 'num_classes' in settings}
    assert classes == {expected['classes']}
    backbone = cfg.model.backbone
    checkpoint = cfg.model.get('pretrained') or (backbone.get('init_cfg') or {}).get('checkpoint')
    assert checkpoint == expected['weights']
    if 'drop_path_rate' in expected:
        assert backbone.drop_path_rate == expected['drop_path_rate']
        assert cfg.custom_imports.imports == ['pvt_mm']
    else:
        assert 'drop_path_rate' not in backbone


def test_detr_with_pvt_has_no_convolution_with_overlapping_windows():
    convolutions = [m for m in build('detr/pvt_small_50e').modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 4 + 3 + 4 + 6 + 1  # patch embeddings, reductions of three stages, input projection
    assert all(m.kernel_size == m.stride and m.padding == (0, 0) for m in convolutions)


@pytest.mark.parametrize('backbone', ['b2', 'b2_li'])
def test_the_3x_detectors_of_pvt_v2_are_the_published_ones(backbone):
    cascade, sparse, gfl, atss = (
        load(f'{system}/pvt_v2_{backbone}_3x').model for system in ('cascade_mask_rcnn', 'sparse_rcnn', 'gfl', 'atss')
    )
    for head, stds in zip(cascade.roi_head.bbox_head, [(0.1, 0.2), (0.05, 0.1), (0.033, 0.067)], strict=True):
        assert (head.type, head.num_shared_convs, head.num_shared_fcs) == ('ConvFCBBoxHead', 4, 1)
        assert tuple(head.bbox_coder.target_stds) == (stds[0], stds[0], stds[1], stds[1])
        assert (head.norm_cfg.type, head.reg_class_agnostic, head.reg_decoded_bbox) == ('SyncBN', False, True)
        assert (head.loss_bbox.type, head.loss_bbox.loss_weight) == ('GIoULoss', 10)
    assert [stage.assigner.pos_iou_thr for stage in cascade.train_cfg.rcnn] == [0.5, 0.6, 0.7]
    assert sparse.rpn_head.num_proposals == sparse.test_cfg.rcnn.max_per_img == 300
    assert len(sparse.roi_head.bbox_head) == sparse.roi_head.num_stages == 6
    assert (sparse.neck.num_outs, sparse.neck.add_extra_convs) == (4, 'on_input')
    for model in (gfl, atss):
        assert (model.neck.start_level, model.neck.num_outs, model.neck.add_extra_convs) == (1, 5, 'on_output')
        assert (model.train_cfg.assigner.type, model.train_cfg.assigner.topk) == ('ATSSAssigner', 9)
        assert (model.bbox_head.loss_bbox.type, model.bbox_head.loss_bbox.loss_weight) == ('GIoULoss', 2)
        assert (model.test_cfg.nms.iou_threshold, model.test_cfg.max_per_img) == (0.6, 100)
    assert gfl.bbox_head.reg_max == 16 and gfl.bbox_head.loss_dfl.loss_weight == 0.25


def test_detr_is_the_papers():
    model = load('detr/pvt_small_50e').model
    assert model.num_queries == 100 and model.encoder.num_layers == model.decoder.num_layers == 6
    for part in (model.encoder, model.decoder):
        assert part.layer_cfg.self_attn_cfg.embed_dims == 256 and part.layer_cfg.self_attn_cfg.num_heads == 8
        assert part.layer_cfg.ffn_cfg.feedforward_channels == 2048


def test_retinanets_pyramid_has_strides_8_to_128():
    model = build('retinanet/pvt_small_1x')
    with torch.no_grad():
        levels = model.extract_feat(torch.zeros(1, 3, 256, 384, device='meta'))
    assert [tuple(level.shape[1:]) for level in levels] == [(256, 256 // s, 384 // s) for s in (8, 16, 32, 64, 128)]
    assert [stride for stride, _ in model.bbox_head.prior_generator.strides] == [8, 16, 32, 64, 128]
    assert model.neck.fpn_convs[3].in_channels == 512  # the extra levels come from the backbone's last map
