"""That the benchmarks compare like with like and say what they measured. How fast anything is, is not tested."""

import json
import math
from argparse import Namespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from torch import nn
from torch._dynamo.utils import counters

from benchmarks import common, deployment, detector, evaluation, export, trans2seg
from benchmarks.backbone import growth
from benchmarks.backbone import make_step as backbone_step
from benchmarks.common import compiled, weigh
from benchmarks.detector import BACKBONES, SYSTEMS, load
from benchmarks.detector import make_step as detector_step
from benchmarks.measure import in_own_process
from benchmarks.peers import FAMILIES, OURS, PEERS, weights
from benchmarks.summary import PAGE, detectors, fill_page
from pvt_mm.commands.launch import find_config
from pvt_mm.models import PVT
from tests.common import ROOT


@pytest.mark.parametrize('name', [name for name in PEERS if name not in (OURS, 'transformers', 'ResNet50')])
def test_a_peer_gives_our_maps(name):
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for theirs, ours in zip(PEERS[name]().eval()(images), PEERS[OURS]().eval()(images), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def test_transformers_gives_our_logits():
    model = PVT('small', num_classes=1000).eval()
    model.load_state_dict(weights())
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        (tokens,) = PEERS['transformers']().eval()(images)
        torch.testing.assert_close(model.head(tokens[:, 0]), model(images), rtol=1e-4, atol=1e-4)


def test_the_textbooks_peer_has_its_attention():
    with torch.no_grad(), torch.profiler.profile() as profile:
        PEERS['pvt_mm, textbook attention']().eval()(torch.randn(1, 3, 64, 64))
    names = [event.name for event in profile.events()]
    assert names.count('aten::_softmax') == 16 and not any('flash' in name for name in names)


@pytest.mark.slow
@pytest.mark.parametrize('side, fits', [(256, True), (2048, False)])
def test_what_does_not_fit_into_memory_is_named(side, fits):
    """At 2048x2048 the first map of ResNet50 alone takes 256 MiB."""
    weighed = in_own_process(weigh, backbone_step, (1, 3, side, side), 'cpu', 'float32', 0.25, ('ResNet50', 'forward'))
    assert set(weighed) == {'mib'} if fits else weighed == dict(fails='out of memory')


def test_what_a_model_fails_with_is_named():
    weighed = in_own_process(weigh, backbone_step, (1, 3, 16, 16), 'cpu', 'float32', math.inf, (OURS, 'forward'))
    assert weighed['fails'].startswith('fails: ValueError: an image of 16x16 px is too small')


@pytest.mark.parametrize(
    'processes, row',
    [
        ([dict(mib=3.0), dict(mib=1.0), dict(mib=2.0)], dict(mib=2.0, least=1.0, most=3.0)),
        ([dict(mib=3.0), dict(fails='out of memory')], dict(fails='out of memory')),
    ],
)
def test_memory_on_a_cpu_is_the_median_of_three_processes(monkeypatch, processes, row):
    left = iter(processes)
    monkeypatch.setattr(common, 'in_own_process', lambda *args: next(left))
    monkeypatch.setattr(common, 'interleaved', lambda steps, *args: {name: [1.0] for name in steps})
    args = Namespace(device='cpu', precision='float32', memory=math.inf, runs=1, seconds=0)
    (found,) = common.compare(lambda *args: None, (1, 3, 64, 64), {'a': ()}, args).values()
    assert {key: found[key] for key in row} == row and ('ms' in found) == ('mib' in row)


class Part(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).relu()


class Detector(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone, self.neck = Part(3, 4, 1), Part(4, 4, 3)

    def forward(self, x):
        return self.neck(self.backbone(x))


@pytest.mark.slow
@pytest.mark.parametrize('model, parts', [(Part(3, 4, 1), 1), (Detector(), 2)])
def test_all_parts_of_a_model_are_compiled_once_for_every_size(model, parts):
    torch._dynamo.reset()
    counters.clear()
    with torch.no_grad():
        step = compiled(model, lambda: model(torch.randn(2, 3, 8, 12)))
        assert counters['stats']['unique_graphs'] == parts
        model(torch.randn(2, 3, 16, 20))
        step()
    assert counters['stats']['unique_graphs'] == parts


def test_growth_is_a_power_of_the_pixels():
    rows = [dict(images=(1, 3, side, side), model='a', ms=side**2, mib=side) for side in (64, 128, 512)]
    assert growth(rows).splitlines()[-1] == '| a | 1.00 | 0.50 |'


@pytest.mark.parametrize('arch', ['tiny', 'b0', 'b2', 'b2_li'])
def test_peers_of_other_sizes_give_maps_of_the_same_shape(arch):
    with torch.no_grad():
        image, models = torch.randn(1, 3, 64, 64), {name: build() for name, build in FAMILIES[arch].items()}
        shapes = {name: [tuple(m.shape) for m in model(image)] for name, model in models.items() if name != 'ResNet50'}
    assert all(found == shapes[OURS] for found in shapes.values()) and [m[2] for m in shapes[OURS]] == [16, 8, 4, 2]
    params = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    # no class row in the ports' last position embedding
    assert params.get("mmdet's port", params[OURS]) in (params[OURS], params[OURS] - 512)


def run(tool, name, *args) -> str:
    return tool(f'benchmarks.{name}', *args, '--runs', 1, '--seconds', 0).stdout


@pytest.mark.slow
def test_backbones_are_timed_weighed_and_kept(tool, tmp_path):
    run(
        tool,
        'backbone',
        'forward',
        '--images',
        '1x64x64',
        '1x224x224',
        '--models',
        OURS,
        'transformers',
        '--out',
        tmp_path,
    )
    place = tmp_path / 'backbone_forward_cpu_float32'
    kept = json.loads(place.with_suffix('.json').read_text())
    assert kept['command'].startswith('python -m benchmarks.backbone forward --images 1x64x64')
    assert kept['versions']['torch'] == torch.__version__ and kept['product'] > 1
    ours, transformers = (row for row in kept['rows'] if row['images'] == [1, 3, 64, 64])
    assert ours['ms'] > 0 and 1 < ours['least'] <= ours['mib'] <= ours['most'] and 0 < ours['rate'] < 1000
    assert transformers['fails'].startswith('fails: RuntimeError: ')
    lines = place.with_suffix('.md').read_text().splitlines()
    assert any(line.startswith('| 1x3x64x64 | transformers | fails: RuntimeError: ') for line in lines)
    assert any(line.startswith('| 1x3x224x224 | transformers |') and 'x |' in line for line in lines)
    assert place.with_suffix('.png').stat().st_size > 10000


def test_every_system_is_the_same_but_for_its_backbone():
    for system in SYSTEMS:
        ours, port = (load(system, backbone) for backbone in BACKBONES[:2])
        assert ours.model.backbone.type == 'PVT' and port.model.backbone.type == 'mmdet.PyramidVisionTransformer'
        init_default_scope(ours.default_scope)
        sizes = [sum(p.numel() for p in MODELS.build(cfg.model.backbone).parameters()) for cfg in (ours, port)]
        assert sizes[0] - sizes[1] in (0, 512)  # the class token's position
        for cfg in (ours, port):
            del cfg.model.backbone
        assert ours.model == port.model


@pytest.mark.slow
@pytest.mark.parametrize('system', SYSTEMS)
@pytest.mark.parametrize('backbone', BACKBONES)
def test_every_system_does_every_piece_of_work(system, backbone):
    images = (1, 3, 64, 96)
    prepared = detector_step(images, 'cpu', 'float32', system, backbone, 'preparing')()
    assert tuple(prepared['inputs'].shape)[:2] == images[:2]
    assert detector_step(images, 'cpu', 'float32', system, backbone, 'network')() is not None
    (sample,) = detector_step(images, 'cpu', 'float32', system, backbone, 'testing')()
    found = sample.pred_sem_seg.data if system == 'semantic_fpn' else sample.pred_instances
    assert len(found) > 0
    step = detector_step(images, 'cpu', 'float32', system, backbone, 'training')
    assert step() > 0 and step() != step()  # the weights change


@pytest.mark.slow
@pytest.mark.parametrize('work', ['testing', 'training'])
@pytest.mark.parametrize('system', SYSTEMS)
def test_every_system_works_in_bfloat16(fresh_ops, system, work):
    assert detector_step((1, 3, 64, 96), 'cpu', 'bfloat16', system, OURS, work)()


def test_a_few_classes_at_a_time_take_less_memory_for_the_same_logits(command, monkeypatch, tmp_path):
    monkeypatch.setattr(common, 'WEIGHINGS', 1)
    monkeypatch.setattr(trans2seg.trans2seg, 'GROUP_VALUES', trans2seg.trans2seg.GROUP_VALUES)
    logits = []
    for values in trans2seg.GROUPS.values():
        torch.manual_seed(0)
        logits.append(trans2seg.make_step((1, 3, 128, 128), 'cpu', 'float32', values)())
    assert logits[0].shape == (1, 150, 32, 32)
    torch.testing.assert_close(*logits)
    assert not command(trans2seg, '--images', '1x384x384', '--runs', 1, '--seconds', 0, '--out', tmp_path)
    few, all_classes = json.loads((tmp_path / 'trans2seg_cpu_float32.json').read_text())['rows']
    assert few['model'] == trans2seg.OURS and few['mib'] < all_classes['mib'] / 2


@pytest.mark.slow
def test_whole_systems_are_timed_weighed_and_kept(command, monkeypatch, tmp_path):
    monkeypatch.setattr(common, 'WEIGHINGS', 1)
    flags = ('--systems', 'semantic_fpn', '--size', '64x96', '--runs', 1, '--seconds', 0)
    assert not command(detector, *flags, '--out', tmp_path)
    rows = json.loads((tmp_path / 'detector_cpu_float32.json').read_text())['rows']
    assert len(rows) == 4 * len(BACKBONES) and all(row['ms'] > 0 for row in rows)
    assert (tmp_path / 'detector_cpu_float32.md').read_text().count('| training step |') == len(BACKBONES)


@pytest.mark.slow
def test_the_input_pipeline_is_timed_beside_what_training_consumes(tool, digits, tmp_path):
    run(
        tool,
        'data',
        ROOT / 'configs/retinanet/pvt_nano_digits.py',
        '--data-root',
        digits / 'coco',
        '--images',
        8,
        '--out',
        tmp_path,
    )
    kept = json.loads((tmp_path / 'data_retinanet_cpu_float32.json').read_text())
    assert list(kept['steps']) == ['LoadImageFromFile', 'LoadAnnotations', 'Resize', 'PackDetInputs']
    assert (
        all(ms > 0 for ms in kept['steps'].values()) and kept['given'] > kept['consumed'] > 0
    )  # a digit scene is small
    assert kept['checked']['check'] > 0 and kept['checked']['decode'] > 0
    assert [row['workers'] for row in kept['loaders']] == [0, 1, 2]
    assert all(row['plain'] > 0 and row['exact'] > 0 for row in kept['loaders'])


@pytest.mark.slow
def test_exported_files_are_measured_beside_pytorch(command, digits, tmp_path):
    cfg = Config.fromfile(find_config('semantic_fpn/pvt_nano_digits'))
    with DefaultScope.overwrite_default_scope('mmseg'):
        torch.save(MODELS.build(cfg.model).state_dict(), tmp_path / 'model.pth')
    args = [tmp_path / 'model.pth', '--data-root', f'{digits}/ADEChallengeData2016/', '--device', 'cpu']
    args += ['--runs', 1, '--seconds', 0, '--out', tmp_path]
    assert command(export, 'semantic_fpn/pvt_nano_digits', *args) is None
    kept = json.loads((tmp_path / 'export_semantic_fpn_cpu_float32.json').read_text())
    assert kept['mib']['ONNX, int8 all'] < 0.5 * kept['mib']['ONNX']
    assert kept['figures']['ONNX']['mIoU'] == pytest.approx(kept['figures']['PyTorch']['mIoU'], abs=0.02)
    assert kept['differences']['ONNX']['labels'] < 1e-4
    assert '| OpenVINO |' in (tmp_path / 'export_semantic_fpn_cpu_float32.md').read_text()


def test_files_of_the_papers_models_are_measured(command, digits, tmp_path, monkeypatch):
    """Whose small counterpart stands for them here."""
    monkeypatch.setattr(deployment, 'ROWS', {'semantic_fpn/pvt_nano_digits': {'conv_seg.weight': 1}})
    args = ['--device', 'cpu', '--runs', 1, '--seconds', 0, '--out', tmp_path]
    assert command(deployment, digits / 'coco/val2017', *args) is None
    (found,) = json.loads((tmp_path / 'deployment_cpu_float32.json').read_text())['results'].values()
    assert found['mib'] > 1 and found['image'] == [96, 96]
    assert found['differences']['logits'][0] < 1e-4 and found['differences']['logits'][1] > 10**5
    text = (tmp_path / 'deployment_cpu_float32.md').read_text()
    assert '| semantic_fpn/pvt_nano_digits | 96x96 |' in text


def test_both_evaluations_are_timed_and_give_the_same_figures(command, tmp_path):
    truth = tmp_path / 'truth.json'
    box = dict(image_id=3, category_id=5, bbox=[10, 10, 40, 40], area=1600, iscrowd=0)
    images = [dict(id=i, file_name=f'{i}.jpg', width=100, height=80) for i in (3, 4)]
    truth.write_text(json.dumps(dict(images=images, annotations=[box], categories=[dict(id=5, name='cat')])))
    assert not command(
        evaluation, truth, '--images', 4, '--detections', 6, '--runs', 1, '--seconds', 0, '--out', tmp_path
    )
    kept = json.loads((tmp_path / 'evaluation_cpu_float32.json').read_text())
    assert kept['seconds'].keys() == kept['mib'].keys() == {'faster-coco-eval', 'pycocotools'}
    assert 0 < kept['figures']['pycocotools']['bbox_mAP'] < 1
    assert '4 images, 2 objects' in (tmp_path / 'evaluation_cpu_float32.md').read_text()


def test_the_pages_tables_are_those_of_the_kept_results():
    page = PAGE.read_text()
    assert fill_page(page) == page
    assert fill_page(page.replace("| mmdet's port |", '| another |')) == page


def test_results_of_two_devices_are_not_set_beside_each_other():
    def result(device, ms):
        row = dict(system='detr', work='network', images=[1, 3, 64, 64], mib=1.0)
        return dict(
            device=device,
            precision='float32',
            compiled=False,
            rows=[dict(row, backbone=OURS, ms=ms), dict(row, backbone='ResNet50', ms=2 * ms)],
        )

    lines = detectors([result('cpu', 1000.0), result('cuda', 10.0)]).splitlines()[2:]
    assert ['network, cpu, float32' in lines[0], 'network, cuda, float32' in lines[1]] == [True, True]
    assert all(line.endswith('| 2.00x, 100% |') for line in lines)
