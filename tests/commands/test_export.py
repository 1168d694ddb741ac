"""Exported files find what the models find in PyTorch, at other sizes than they were made with, and without PyTorch."""

import json
import re
import runpy
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from benchmarks.deployment import make_model
from pvt_mm import PVT
from pvt_mm.commands import export
from pvt_mm.commands.export import describe, find_images, find_resize, load_model, resize
from pvt_mm.commands.predict import find_meta, load_inferencer
from pvt_mm.errors import SettingError
from pvt_mm.export.files import load, to_onnx, trace, write, write_onnx, write_openvino
from pvt_mm.export.graphs import build_graph
from pvt_mm.export.verify import compare, compare_objects, make_batches
from tests.common import NANO, ROOT, run_onnx

# Three stages and two levels: a graph that is written in seconds.
SMALL = {key: values[:3] for key, values in NANO.items()}
SMALL_V2 = dict(SMALL, patch_sizes=(7, 3, 3), strides=(4, 2, 2), linear=(False,) * 3)
BACKBONE = dict(arch=SMALL, out_indices=(1, 2))
NECK = dict(in_channels=[32, 48], out_channels=16, num_outs=2, norm_cfg=dict(type='GN', num_groups=4))
RETINANET = dict(
    backbone=BACKBONE,
    neck=NECK,
    bbox_head=dict(
        in_channels=16,
        feat_channels=16,
        stacked_convs=1,
        norm_cfg=dict(type='GN', num_groups=4),
        anchor_generator=dict(strides=[8, 16]),
    ),
    test_cfg=dict(nms_pre=200, score_thr=0.3),
)
MASK_RCNN = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=BACKBONE,
    neck=dict(NECK, start_level=0),
    rpn_head=dict(in_channels=16, feat_channels=16, anchor_generator=dict(strides=[8, 16])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16, featmap_strides=[8, 16]),
        bbox_head=dict(in_channels=16, fc_out_channels=32),
        mask_roi_extractor=dict(out_channels=16, featmap_strides=[8, 16]),
        mask_head=dict(num_convs=1, in_channels=16, conv_out_channels=8),
    ),
    test_cfg=dict(rpn=dict(nms_pre=100, max_per_img=60), rcnn=dict(score_thr=0.12, max_per_img=40)),
)
FASTER_RCNN = dict(
    MASK_RCNN,
    type='FasterRCNN',
    roi_head=dict(MASK_RCNN['roi_head'], mask_roi_extractor=None, mask_head=None),
)
ATTENTION, FFN = dict(embed_dims=32, num_heads=2), dict(embed_dims=32, feedforward_channels=32)
DETR = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(arch=SMALL),
    neck=dict(in_channels=[48], out_channels=32),
    encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=ATTENTION, ffn_cfg=FFN)),
    decoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=ATTENTION, cross_attn_cfg=ATTENTION, ffn_cfg=FFN)),
    positional_encoding=dict(num_feats=16),
    bbox_head=dict(embed_dims=32),
)
TRANS2SEG = dict(
    backbone=dict(arch=SMALL),
    decode_head=dict(in_channels=[16, 48], embed_dims=32, feat_size=(6, 6)),
    data_preprocessor=dict(size=(96, 96)),
    test_cfg=dict(mode='slide', crop_size=(96, 96), stride=(64, 64)),
)
SEMANTIC_FPN = dict(
    backbone=BACKBONE,
    neck=dict(NECK),
    decode_head=dict(
        in_channels=[16, 16],
        in_index=[0, 1],
        feature_strides=[8, 16],
        channels=16,
        norm_cfg=dict(type='GN', num_groups=4),
    ),
)


def make(name: str, model: dict, scale: dict[str, float], folder: Path) -> tuple[Path, Path]:
    """A config of the digits with a smaller model, and a checkpoint of it. The weights named in ``scale`` are spread.

    A model as it is initialised gives all boxes the same score; spread so far, its scores go from 0 to 1.
    """
    folder = Path(mkdtemp(dir=folder))  # others' files stay
    config, checkpoint = folder / f'{name}.py', folder / f'{name}.pth'
    config.write_text(f'_base_ = {str(ROOT / f"configs/{name}/pvt_nano_digits.py")!r}\nmodel = {model!r}\n')
    cfg = Config.fromfile(config)
    built = make_model(cfg, scale)
    meta = dict(dataset_meta=dict(cfg.metainfo))
    torch.save(dict(state_dict=built.state_dict(), meta=meta), checkpoint)
    return config, checkpoint


class Exported:
    """A model, its graph, and the files of it."""

    def __init__(self, config: Path, checkpoint: Path, output: str = 'labels'):
        self.config, self.checkpoint = config, checkpoint
        self.cfg = Config.fromfile(config)
        self.model, read = load_model(self.cfg, str(checkpoint))
        self.graph = build_graph(self.model, output=output).eval()
        self.meta = describe(self.cfg, read, self.graph)

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        height, width = self.graph.min_size
        return trace(self.graph, (height + 96, width + 128))

    @cached_property
    def onnx(self) -> torch.onnx.ONNXProgram:
        return to_onnx(self.program, self.graph)

    def write(self, kind: str, path: Path) -> Path:
        if kind == 'torch_export':
            write(self.program, self.graph, self.meta, kind, path)
        else:
            dict(onnx=write_onnx, openvino=write_openvino)[kind](self.onnx, self.meta, path)
        return path

    @torch.no_grad()
    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """What the graph finds, without a file."""
        return {name: x.numpy() for name, x in zip(self.graph.outputs, self.graph(torch.from_numpy(images)))}

    def check(self, path: Path | None, batches: list[np.ndarray]) -> dict[str, int]:
        """Compares a file, or the graph without one, with the model in PyTorch: how much was compared, by the kind of
        output."""
        differences = compare(self.model, self.graph, load(path)[0] if path else self.run, batches)
        assert all(difference.is_small for difference in differences), differences
        return {difference.kind: difference.number for difference in differences}


def real_batches(folder: Path, scale: float = 0.5) -> list[np.ndarray]:
    """Real images of three or four sizes, and two of them as a batch."""
    by_size = {}
    for path in sorted(folder.glob('*.jpg')):
        image = cv2.imread(str(path))
        by_size.setdefault(image.shape, cv2.resize(image, None, fx=scale, fy=scale))
        if len(by_size) == 4:
            break
    images = list(by_size.values())
    assert len(images) > 2
    return [*(image[None] for image in images), np.stack([images[0], images[0][::-1]])]


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('export')


@pytest.fixture(scope='module')
def retinanet(folder) -> Exported:
    return Exported(*make('retinanet', RETINANET, {'retina_cls': 0.1, 'retina_reg': 0.05}, folder))


@pytest.fixture(scope='module')
def retinanet_onnx(retinanet, folder) -> Path:
    return retinanet.write('onnx', folder / 'retinanet.onnx')


@pytest.fixture(scope='module')
def scenes(digits) -> list[np.ndarray]:
    """Scenes of the digits, at two sizes."""
    images = [cv2.imread(str(path)) for path in sorted((digits / 'coco/val2017').glob('*.jpg'))[:3]]
    return [np.stack(images), cv2.resize(images[0], (131, 149))[None]]


def test_a_detector_finds_the_same_in_onnx(retinanet, retinanet_onnx, scenes):
    assert retinanet.check(retinanet_onnx, scenes)['boxes'] > 200


def test_a_detector_finds_the_same_in_real_images_of_several_sizes(retinanet, retinanet_onnx, real_coco):
    assert retinanet.check(retinanet_onnx, real_batches(real_coco / 'val2017'))['boxes'] > 500


@pytest.mark.parametrize('kind, name', [('torch_export', 'retinanet.pt2'), ('openvino', 'retinanet.xml')])
def test_a_detector_finds_the_same_in_other_formats(retinanet, folder, scenes, kind, name):
    assert retinanet.check(retinanet.write(kind, folder / name), scenes)['boxes'] > 200


REGIONS = {'fc_cls': 1, 'fc_reg': 0.05, 'rpn_cls': 0.3, 'rpn_reg': 0.05}


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, model, spread, number',
    [
        ('mask_rcnn', MASK_RCNN, REGIONS, 400),
        ('mask_rcnn', FASTER_RCNN, REGIONS, 400),
        ('detr', DETR, {'query_embedding': 1, 'fc_cls': 1}, 200),
        ('trans2seg', TRANS2SEG, {'fc_q': 0.5, 'fc_kv': 0.5, 'pred': 1}, 5 * 10**4),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_a_system_finds_the_same_in_real_images(folder, scenes, real_coco, name, model, spread, number):
    """Padded, and in windows: the scenes are one window each."""
    exported = Exported(*make(name, model, spread, folder))
    path = exported.write('onnx', folder / f'{name}.onnx')
    batches = real_batches(real_coco / 'val2017', 0.5 if 'boxes' in exported.graph.outputs else 0.3)
    compared = exported.check(path, [*scenes, *batches[1:3]])
    assert all(compared[kind] > number for kind in exported.graph.outputs[:1])
    assert ('masks' in compared) == (model is MASK_RCNN)


@pytest.mark.slow
@pytest.mark.parametrize(
    'backbone',
    [
        dict(type='PVTv2', arch=SMALL_V2),
        dict(type='PVTv2', arch=dict(SMALL_V2, linear=(True,) * 3)),
        dict(ignore_padding=True),
    ],
    ids=['PVTv2', 'PVTv2-Li', 'ignore_padding'],
)
def test_every_kind_of_backbone_finds_the_same_in_onnx(folder, scenes, backbone):
    backbone = dict(BACKBONE, _delete_=True, type='PVT') | backbone
    model = dict(RETINANET, backbone=backbone, data_preprocessor=dict(pad_size_divisor=32))
    exported = Exported(*make('retinanet', model, {'retina_cls': 0.1, 'retina_reg': 0.05}, folder))
    batches = [np.stack([image[:100, :120] for image in scenes[0]]), *scenes]
    assert exported.check(exported.write('onnx', folder / 'backbone.onnx'), batches)['boxes'] > 400


def test_the_runner_needs_no_torch_and_draws_what_predict_finds(retinanet, retinanet_onnx, digits, folder):
    image = sorted((digits / 'coco/val2017').glob('*.jpg'))[0]
    out = folder / 'drawn.png'
    printed = run_onnx(retinanet_onnx, image, out)
    assert (cv2.imread(str(out)) != cv2.imread(str(image))).mean() > 0.01
    inferencer = load_inferencer(retinanet.cfg, str(retinanet.checkpoint), 'cpu')
    expected = inferencer(str(image), return_datasamples=True)['predictions'][0].pred_instances
    expected = expected[expected.scores > 0.3]
    assert len(printed) == len(expected) > 20
    for line, box, score, label in zip(printed, expected.bboxes, expected.scores, expected.labels):
        name, *numbers = line.split()
        assert name == str(int(label))
        np.testing.assert_allclose(list(map(float, numbers)), [score, *box], atol=0.11)


def test_the_runner_draws_masks_inside_their_boxes():
    draw = runpy.run_path(str(ROOT / 'tools/run_onnx.py'))['draw']
    image = np.full((60, 80, 3), 200, np.uint8)
    mask = np.zeros((1, 28, 28), np.float32)
    mask[:, :, :14] = 0.4  # the left half
    found = dict(boxes=np.float32([[10, 10, 50, 50]]), scores=np.float32([0.9]), labels=np.array([0]), masks=mask)
    draw(image, found, dict(task='detection', palette=[[60, 40, 20]], classes=['x'], mask_thr=0.3), [1.0, 1.0])
    assert (image[30:48, 12:28] == [110, 120, 130]).all()  # half the image, half the colour, in BGR
    assert (image[30:48, 32:48] == 200).all() and (image[:, 55:] == 200).all()


def test_the_file_says_what_a_runner_needs(retinanet_onnx):
    import onnx

    model = onnx.load(retinanet_onnx)
    meta = json.loads(next(entry.value for entry in model.metadata_props if entry.key == 'pvt_mm'))
    assert meta['classes'] == list('0123456789')
    assert meta['resize'] == [['fit', 128, 128]]
    assert meta['outputs'] == [value.name for value in model.graph.output] == ['boxes', 'scores', 'labels']
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ['batch', 'height', 'width', 3]
    assert {node.op_type for node in model.graph.node} >= {'NonMaxSuppression'}


def test_images_are_resized_as_by_the_test_pipeline(real_coco):
    from mmcv.transforms import Compose

    path = sorted((real_coco / 'val2017').glob('*.jpg'))[0]
    init_default_scope('mmdet')
    for scale in ((1333, 800), (333, 500)):
        pipeline = Compose([dict(type='LoadImageFromFile'), dict(type='Resize', scale=scale, keep_ratio=True)])
        expected = pipeline(dict(img_path=str(path)))['img']
        np.testing.assert_array_equal(resize(cv2.imread(str(path)), [['fit', *scale]]), expected)


@pytest.mark.parametrize(
    'transforms, steps',
    [
        ([dict(type='Resize', scale=(224, 224), backend='pillow', interpolation='bicubic')], None),
        ([dict(type='Resize', scale=(500, 300), keep_ratio=True, interpolation='area')], None),
        ([dict(type='Resize', scale=(300, 260)), dict(type='CenterCrop', crop_size=(201, 224))], None),
        ([dict(type='CenterCrop', crop_size=1000)], [['crop', 1000, 1000]]),
        ([dict(type='mmseg.ResizeToMultiple', size_divisor=32)], [['multiple', 32]]),
        ([dict(type='ResizeEdge', scale=256, backend='pillow', interpolation='bicubic')], None),
        ([dict(type='ResizeEdge', scale=321, edge='long')], [['long', 321]]),
    ],
)
def test_the_runner_resizes_as_export_and_the_pipeline_do(real_coco, transforms, steps):
    """mmpretrain's ResizeEdge is held to in tests/classification."""
    from mmcv.transforms import Compose

    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=transforms))))
    found = find_resize(cfg)
    assert steps is None or found == steps
    run = runpy.run_path(str(ROOT / 'tools/run_onnx.py'))['resize']
    for path in sorted((real_coco / 'val2017').glob('*.jpg'))[:5]:
        image = cv2.imread(str(path))
        expected = resize(image, found)
        np.testing.assert_array_equal(run(image, found), expected)
        np.testing.assert_array_equal(run(image[..., 0], found), resize(image[..., :1], found)[..., 0])
        if transforms[0]['type'] != 'ResizeEdge':
            init_default_scope('mmdet')
            np.testing.assert_array_equal(Compose(transforms)(dict(img=image))['img'], expected)


@pytest.mark.parametrize(
    'step, named',
    [
        (dict(type='Pad', size_divisor=32), 'Pad'),
        (dict(type='ResizeEdge', scale=9, edge='width'), 'ResizeEdge'),
        (dict(type='LoadMultiChannelImageFromFiles'), 'LoadMultiChannelImageFromFiles'),
        (dict(type='mmseg.LoadBiomedicalImageFromFile'), 'LoadBiomedicalImageFromFile'),
        (dict(type='LoadImageFromFile', imdecode_backend='pillow'), "imdecode_backend='pillow'"),
        (dict(type='LoadImageFromFile', color_type='color_ignore_orientation'), 'color_type='),
    ],
)
def test_steps_that_a_runner_does_not_know_are_refused(step, named):
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=[step]))))
    with pytest.raises(SettingError, match=named):
        find_resize(cfg)


def test_wrappers_of_the_test_dataset_hide_no_step_and_no_class(retinanet):
    cfg = Config.fromfile(retinanet.config)
    plain, meta = cfg.test_dataloader.dataset, find_meta(cfg, {})
    steps = find_resize(cfg)
    assert steps == [['fit', 128, 128]]
    for wrapper in (
        dict(type='ConcatDataset', datasets=[plain, plain]),
        dict(type='ConcatDataset', datasets=[dict(type='RepeatDataset', times=2, dataset=plain)]),
    ):
        cfg.test_dataloader.dataset = wrapper
        assert find_resize(cfg) == steps and find_meta(cfg, {}) == meta
        assert load_inferencer(cfg, str(retinanet.checkpoint), 'cpu')
    mixed = dict(type='MultiImageMixDataset', dataset=plain, pipeline=[dict(type='Resize', scale=(64, 64))])
    cfg.test_dataloader.dataset = mixed
    assert find_resize(cfg) == [*steps, ['stretch', 64, 64]]
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[plain, dict(plain, pipeline=[])])
    with pytest.raises(SettingError, match='different pipelines'):
        find_resize(cfg)
    with pytest.raises(SettingError, match='different pipelines'):
        load_inferencer(cfg, str(retinanet.checkpoint), 'cpu')


def test_grey_images_have_one_channel(folder, digits):
    grey = dict(data_preprocessor=dict(mean=[117.0], std=[57.0], bgr_to_rgb=False))
    model = dict(RETINANET, backbone=dict(BACKBONE, in_channels=1), **grey)
    config, checkpoint = make('retinanet', model, {'retina_cls': 0.1, 'retina_reg': 0.05}, folder)
    exported = Exported(config, checkpoint)
    assert exported.meta['channels'] == 1 and 'height, width, 1), grey' in exported.meta['input']
    images = find_images(exported.cfg, [str(digits / 'coco/val2017')], exported.meta['resize'], exported.graph)
    batches = list(make_batches(images, exported.graph))
    assert all(batch.shape[3] == 1 for batch in batches)
    assert exported.check(None, batches)['boxes'] > 100
    assert exported.program is not None
    with pytest.raises(SettingError, match='1 channels does not say how images are normalised'):
        build_graph(PVT(NANO, in_channels=1))


def test_a_segmenter_labels_the_same_in_onnx(folder, scenes, real_ade):
    config, checkpoint = make('semantic_fpn', SEMANTIC_FPN, {'conv_seg.weight': 1}, folder)
    exported = Exported(config, checkpoint)
    path = exported.write('onnx', folder / 'semantic_fpn.onnx')
    found = load(path)[0](scenes[0])['labels']
    assert found.dtype == np.uint8
    assert len(np.unique(found)) > 3
    exported.check(path, scenes)
    exported.check(path, real_batches(real_ade / 'images/validation', 0.25))
    image, out = folder / 'scene.png', folder / 'labels.png'
    scene = scenes[0][0]
    cv2.imwrite(str(image), scene)
    assert run_onnx(path, image, out) == []
    small = resize(scene, exported.meta['resize'])
    labels = cv2.resize(load(path)[0](small[None])['labels'][0], scene.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    colours = np.array(exported.meta['palette'], np.uint8)[labels][..., ::-1]
    np.testing.assert_array_equal(cv2.imread(str(out)), scene // 2 + colours // 2)


BN = dict(norm_cfg=dict(type='BN'), num_classes=11, align_corners=False, channels=16)
HEADS = dict(
    PSPNet=dict(type='PSPHead', in_channels=48, in_index=1, **BN),
    UPerNet=dict(type='UPerHead', in_channels=[32, 48], in_index=[0, 1], **BN),
    DANet=dict(type='DAHead', in_channels=48, in_index=1, pam_channels=8, **BN),
    OCRNet=[
        dict(type='FCNHead', in_channels=48, in_index=1, num_convs=1, **BN),
        dict(type='OCRHead', in_channels=48, in_index=1, ocr_channels=8, **BN),
    ],
)


@pytest.mark.slow
@pytest.mark.parametrize('name', HEADS)
def test_heads_of_mmseg_label_the_same_in_images_of_every_shape(folder, scenes, name):
    if isinstance(HEADS[name], list):
        model = dict(type='CascadeEncoderDecoder', num_stages=2, decode_head=HEADS[name])
    else:
        model = dict(decode_head=dict(HEADS[name], _delete_=True))
    model |= dict(backbone=BACKBONE, neck=None)
    exported = Exported(*make('semantic_fpn', model, {'conv_seg.weight': 1}, folder), output='logits')
    path = exported.write('onnx', folder / f'{name}.onnx')
    sizes = [(1, 128, 256), (2, 160, 128), (1, 128, 160), (1, 224, 224)]
    batches = [np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    exported.check(path, [*scenes, *batches])


def test_a_segmenter_returns_its_logits(folder, scenes):
    exported = Exported(*make('semantic_fpn', SEMANTIC_FPN, {'conv_seg.weight': 1}, folder), output='logits')
    path = exported.write('onnx', folder / 'logits.onnx')
    assert load(path)[0](scenes[0])['logits'].shape == (3, 11, *scenes[0].shape[1:3])
    assert exported.check(path, scenes)['logits'] > 10**5
    image, drawn = folder / 'scene.png', {}
    cv2.imwrite(str(image), scenes[0][0])
    labels = Exported(exported.config, exported.checkpoint).write('onnx', folder / 'labels.onnx')
    for kind in (path, labels):
        assert run_onnx(kind, image, folder / 'drawn.png') == []
        drawn[kind] = cv2.imread(str(folder / 'drawn.png'))
    np.testing.assert_array_equal(drawn[path], drawn[labels])


def test_more_classes_than_uint8_holds_keep_their_numbers(folder):
    config, checkpoint = make('semantic_fpn', dict(SEMANTIC_FPN), {}, folder)
    model, _ = load_model(Config.fromfile(config), str(checkpoint))
    graph = build_graph(model).eval()
    logits = torch.zeros(1, 300, 16, 16)
    logits[:, 299] = 1
    model.decode_head.forward = lambda features: logits
    assert int(graph(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))[0].unique()) == 299


def test_a_backbone_classifies_the_same(folder, command, capsys):
    """The command, whole: a bare classifier has no test images, and noise tells as much."""
    torch.manual_seed(0)
    config, checkpoint, out = folder / 'classifier.py', folder / 'classifier.pth', folder / 'classifier.onnx'
    model = dict(type='PVT', arch=NANO, num_classes=7)
    config.write_text(f"custom_imports = dict(imports=['pvt_mm'])\nmodel = {model}\n")
    torch.save(PVT(NANO, num_classes=7).state_dict(), checkpoint)
    assert command(export, config, checkpoint, '--out', out) is None
    assert 'scores: ' in capsys.readouterr().out
    assert load(out)[0](np.zeros((3, 70, 99, 3), np.uint8))['scores'].shape == (3, 7)


def test_a_file_that_differs_is_refused(retinanet, retinanet_onnx, scenes):
    """Where scores, a box or a class are off, the comparison says so, and it never passes without boxes."""
    run = load(retinanet_onnx)[0]

    def off(**changes):
        return lambda images: {key: value + changes.get(key, 0) for key, value in run(images).items()}

    for changes in (dict(boxes=np.float32(0.2)), dict(scores=np.float32(2e-4)), dict(labels=1)):
        differences = compare(retinanet.model, retinanet.graph, off(**changes), scenes)
        assert not all(difference.is_small for difference in differences), changes
    nothing = compare_objects(
        dict(boxes=np.zeros((5, 4)), scores=np.zeros(5), labels=np.zeros(5)),
        dict(boxes=np.zeros((0, 4)), scores=np.zeros(0), labels=np.zeros(0)),
        0.05,
    )
    assert not any(difference.is_small for difference in nothing)


def test_what_cannot_be_exported_is_named(retinanet, folder, command):
    class Strange(torch.nn.Module):
        backbone = min_size = None

        def forward(self, x):
            return (torch.special.bessel_j1(x),)

    def refuse(**options) -> str:
        return command(
            export, retinanet.config, retinanet.checkpoint, '--cfg-options', *(f'{k}={v}' for k, v in options.items())
        )

    assert 'model.test_cfg.nms.type=nms' in refuse(**{'model.test_cfg.nms.type': 'soft_nms'})
    assert 'model.test_cfg.max_per_img=-1 must be' in refuse(**{'model.test_cfg.max_per_img': -1})
    assert '--images' in refuse(**{'test_dataloader.dataset.data_root': 'nowhere'})
    retinanet_model = retinanet.model
    graph = build_graph(retinanet_model, part='backbone')
    graph.backbone, graph.outputs = Strange(), ('map0',)
    with pytest.raises(SettingError, match=r'bessel_j1.*--to torch_export'):
        write(trace(graph.eval(), (64, 64)), graph, {}, 'onnx', folder / 'strange.onnx')


def test_a_setting_of_region_detectors_is_named_where_it_stands(folder):
    cfg = Config.fromfile(make('mask_rcnn', MASK_RCNN, {}, folder)[0])
    for place, value, message in (
        ('rcnn.nms.type', 'soft_nms', 'model.test_cfg.rcnn.nms.type=nms'),
        ('rpn.nms.type', 'soft_nms', 'model.test_cfg.rpn.nms.type=nms'),
        ('rcnn.nms.tpye', 'nms', 'model.test_cfg.rcnn.nms.tpye: a graph knows type, iou_threshold'),
        ('rcnn.max_per_img', -1, 'model.test_cfg.rcnn.max_per_img=-1 must be'),
        ('rpn.nms', dict(_delete_=True, type='nms'), 'model.test_cfg.rpn.nms has no iou_threshold'),
        ('rcnn.mask_thr_binary', -1, 'model.test_cfg.rcnn.mask_thr_binary=-1'),
    ):
        changed = deepcopy(cfg)
        changed.merge_from_dict({f'model.test_cfg.{place}': value})
        with pytest.raises(SettingError, match=re.escape(message)):
            build_graph(make_model(changed, {}))


@pytest.mark.parametrize('nms', [None, dict(type='nms', iou_threshold=0.5, class_agnostic=True)])
def test_boxes_are_suppressed_as_the_config_says(folder, scenes, nms):
    model = dict(RETINANET, test_cfg=dict(RETINANET['test_cfg'], nms=nms and dict(nms, _delete_=True)))
    exported = Exported(*make('retinanet', model, {'retina_cls': 0.1, 'retina_reg': 0.05}, folder))
    assert exported.check(None, scenes)['boxes'] > 100


def test_masks_are_cut_off_where_the_config_says(folder, scenes):
    thr = dict(MASK_RCNN['test_cfg']['rcnn'], mask_thr_binary=0.3)
    model = dict(MASK_RCNN, test_cfg=dict(MASK_RCNN['test_cfg'], rcnn=thr))
    exported = Exported(*make('mask_rcnn', model, REGIONS, folder))
    assert exported.meta['mask_thr'] == 0.3
    assert exported.check(None, scenes)['masks'] > 1000


def test_what_is_not_right_leaves_no_file(retinanet, folder, digits, command, monkeypatch):
    images, out = digits / 'coco/val2017', folder / 'none' / 'wrong.onnx'

    def off(images: np.ndarray) -> dict[str, np.ndarray]:
        return {name: value + (name == 'scores') for name, value in retinanet.run(images).items()}

    for run, message in (
        (lambda images: 1 / 0, 'does not run on a batch of 1 images of'),
        (off, 'wrong.onnx was not written: it differs'),
    ):
        monkeypatch.setattr(export, 'load', lambda path, run=run: (run, {}))
        assert message in command(export, retinanet.config, retinanet.checkpoint, '--images', images, '--out', out)
        assert not list(out.parent.iterdir())


def test_a_missing_package_is_one_line(monkeypatch, command):
    monkeypatch.setattr('pvt_mm.export.files.find_spec', lambda name: None)
    assert command(export, 'retinanet/pvt_nano_digits', 'none.pth').endswith("pip install 'pvt_mm[export]'")


def test_a_torch_that_is_too_old_is_one_line(monkeypatch, command):
    monkeypatch.setattr('pvt_mm.export.files.shapes_config', object())
    message = command(export, 'semantic_fpn/pvt_small_80k', 'some.pth')
    assert message == (
        f'export.py: torch {torch.__version__} cannot record a graph for any size: export with torch 2.7 or later, '
        'which reads the same checkpoints'
    )
