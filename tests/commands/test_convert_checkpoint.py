import sys

import pytest
import torch
from mmengine.runner import load_checkpoint
from torch import nn

from pvt_mm.commands import convert_checkpoint
from pvt_mm.models import PVT, PVTv2
from pvt_mm.weights.formats import find_backbones, from_published
from tests.parity import formula_weights

ARCH = dict(
    embed_dims=(8, 16, 40, 64),
    num_layers=(1, 2, 1, 1),
    num_heads=(1, 2, 5, 8),
    mlp_ratios=(8, 8, 4, 4),
    sr_ratios=(8, 4, 2, 1),
    patch_sizes=(4, 2, 2, 2),
)


ARCH_V2 = dict(ARCH, patch_sizes=(7, 3, 3, 3), strides=(4, 2, 2, 2), linear=(False,) * 4)


@pytest.fixture
def convert(monkeypatch, capsys):
    """Runs the command in this process; returns the lines that it prints."""

    def run(*args) -> list[str]:
        monkeypatch.setattr(sys, 'argv', ['convert_checkpoint', *map(str, args)])
        convert_checkpoint.main()
        return [line for line in capsys.readouterr().out.splitlines() if ' - INFO - ' not in line]

    return run


@pytest.fixture
def classifier(tmp_path):
    """A published classifier's file and weights."""
    weights = formula_weights(PVT(ARCH, 64, num_classes=7))
    torch.save(weights, tmp_path / 'published.pth')
    return tmp_path / 'published.pth', weights


def same(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.parametrize('suffix', ['pth', 'bin', 'safetensors'])
def test_there_and_back_through_files(suffix, convert, classifier, tmp_path):
    path, weights = classifier
    lines = convert(path, tmp_path / f'new/other.{suffix}', '--to', 'huggingface')
    assert lines[0] == f"{path}: a PVT with published names under ''"
    assert lines[1].startswith('verified: published and huggingface give the same outputs at 64x64 px (stage 1, ')
    assert 'stage 3, logits)' in lines[1] and not any('dropped' in line for line in lines)
    convert(tmp_path / f'new/other.{suffix}', tmp_path / 'back.pth', '--to', 'published')
    assert same(torch.load(tmp_path / 'back.pth'), weights)


@pytest.mark.parametrize('arch', [ARCH_V2, dict(ARCH_V2, linear=(True,) * 4)])
def test_pvt_v2_there_and_back_through_files(arch, convert, tmp_path):
    weights = formula_weights(PVTv2(arch, num_classes=7))
    torch.save(weights, tmp_path / 'v2.pth')
    lines = convert(tmp_path / 'v2.pth', tmp_path / 'hf.safetensors', '--to', 'huggingface')
    assert lines[0].endswith("v2.pth: a PVTv2 with published names under ''")
    assert lines[1].startswith('verified: published and huggingface give the same outputs at 96x96 px (stage 1, ')
    assert 'stage 4, logits)' in lines[1] and not any('dropped' in line for line in lines)
    lines = convert(tmp_path / 'hf.safetensors', tmp_path / 'timm.pth', '--to', 'timm')
    assert lines[1].startswith("not verified: timm's models are not run")
    if arch is ARCH_V2:
        lines = convert(tmp_path / 'timm.pth', tmp_path / 'mmdet.pth', '--to', 'mmdet')
        assert lines[2] == 'dropped, no place in mmdet: head.weight, head.bias'
        lines = convert(tmp_path / 'mmdet.pth', tmp_path / 'dense.pth', '--to', 'huggingface')
        assert lines[1].startswith('verified: mmdet and huggingface give the same outputs') and 'stage 4)' in lines[1]
        assert lines[2] == 'SRC is no classifier: transformers starts the classifier at random'
    else:
        with pytest.raises(SystemExit, match='timm.pth: mmdet has no PVTv2 with linear attention'):
            convert(tmp_path / 'timm.pth', tmp_path / 'mmdet.pth', '--to', 'mmdet')
    convert(tmp_path / 'timm.pth', tmp_path / 'back.pth', '--to', 'published')
    assert same(torch.load(tmp_path / 'back.pth'), weights)


def test_transformers_reads_what_was_written(convert, classifier, tmp_path):
    transformers = pytest.importorskip('transformers')
    config = transformers.PvtConfig(hidden_sizes=ARCH['embed_dims'], depths=ARCH['num_layers'], image_size=64)
    config.num_labels = 7
    config.save_pretrained(tmp_path / 'folder')
    path, weights = classifier
    convert(path, tmp_path / 'folder/model.safetensors', '--to', 'huggingface')
    model = transformers.PvtForImageClassification.from_pretrained(tmp_path / 'folder')
    assert same(model.state_dict(), from_published(weights, 'huggingface')[0])


def test_a_detector_keeps_its_neck_and_meta_and_says_what_it_loses(convert, tmp_path):
    model = nn.ModuleDict(dict(backbone=PVT(ARCH, 64), neck=nn.BatchNorm2d(3)))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    trained = dict(meta=dict(epoch=12), state_dict=model.state_dict(), optimizer={}, message_hub={})
    torch.save(trained, tmp_path / 'epoch_12.pth')
    lines = convert(tmp_path / 'epoch_12.pth', tmp_path / 'mmdet.pth', '--to', 'mmdet')
    assert lines[0].endswith("epoch_12.pth: a PVT with published names under 'backbone.'")
    assert 'stage 4), relative error' in lines[1]
    assert lines[2:4] == [
        'dropped, no place in mmdet: backbone.pos_embed4[:, 0]',
        'dropped, no weights: message_hub, optimizer',
    ]
    written = torch.load(tmp_path / 'mmdet.pth')
    assert written['meta'] == dict(epoch=12) and find_backbones(written['state_dict']) == {'backbone.': 'mmdet'}
    assert torch.equal(written['state_dict']['neck.weight'], model.neck.weight)
    convert(tmp_path / 'mmdet.pth', tmp_path / 'back.pth', '--to', 'published')
    model.backbone.pos_embed4.data[:, 0] = 0
    again = nn.ModuleDict(dict(backbone=PVT(ARCH, 64), neck=nn.BatchNorm2d(3)))
    load_checkpoint(again, str(tmp_path / 'back.pth'), strict=True)
    assert same(again.state_dict(), model.state_dict())


def test_a_dense_model_for_transformers_says_what_starts_at_random(convert, tmp_path):
    weights = {f'module.backbone.{key}': value for key, value in formula_weights(PVT(ARCH, 64)).items()}
    torch.save(dict(model=weights | {'module.head.weight': torch.ones(2)}, args={}), tmp_path / 'dense.pth')
    lines = convert(tmp_path / 'dense.pth', tmp_path / 'dense.safetensors', '--to', 'huggingface')
    assert '(stage 1, stage 2, stage 3), relative' in lines[1]
    assert lines[2] == 'dropped, no place in huggingface: head.weight'
    assert lines[3].startswith('SRC is no classifier: transformers starts the class token')
    assert lines[4] == 'dropped, no weights: args'


@pytest.mark.parametrize('to', ['published', 'mmdet', 'huggingface'])
def test_what_cannot_be_run_is_converted_and_said(to, convert, tmp_path):
    torch.save(formula_weights(PVT(ARCH, (64, 96))), tmp_path / 'wide.pth')
    lines = convert(tmp_path / 'wide.pth', tmp_path / 'out.pth', '--to', to)
    assert lines[1].startswith('not verified') and 'are not square' in lines[1]
    assert (tmp_path / 'out.pth').is_file()


def test_a_library_that_is_not_installed_is_named(convert, classifier, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    lines = convert(classifier[0], tmp_path / 'out.bin', '--to', 'huggingface')
    assert lines[1] == 'not verified: transformers is not installed' and (tmp_path / 'out.bin').is_file()


def test_a_wrong_conversion_is_not_written(convert, classifier, tmp_path, monkeypatch):
    def wrong(weights, to):
        weights, lost = from_published(weights, to)
        weights['layers.0.1.1.ffn.layers.0.bias'] = weights['layers.0.1.1.ffn.layers.0.bias'] + 1
        return weights, lost

    monkeypatch.setattr(convert_checkpoint, 'convert_backbones', wrong)
    with pytest.raises(SystemExit, match='published.pth: the converted backbone computes something else'):
        convert(classifier[0], tmp_path / 'out.pth', '--to', 'mmdet')
    assert not (tmp_path / 'out.pth').exists()


def test_the_source_is_never_overwritten(convert, classifier, tmp_path):
    path, _ = classifier
    before = path.read_bytes()
    (tmp_path / 'link.pth').symlink_to(path)
    for src, dst in ((path, path), (path, tmp_path / 'link.pth'), (tmp_path, path)):
        with pytest.raises(SystemExit, match='is SRC: name another file'):
            convert(src, dst, '--to', 'mmdet')
    with pytest.raises(SystemExit, match='is a folder: name a file'):
        convert(path, tmp_path, '--to', 'mmdet')
    assert path.read_bytes() == before


def test_what_is_no_pvt_or_cannot_be_written_ends_in_one_line(convert, classifier, tmp_path):
    torch.save({'conv1.weight': torch.ones(2)}, tmp_path / 'resnet.pth')
    with pytest.raises(SystemExit, match=r'resnet.pth: its weights \(conv1.weight, ...\) name no PVT'):
        convert(tmp_path / 'resnet.pth', tmp_path / 'out.pth', '--to', 'mmdet')
    with pytest.raises(SystemExit, match='published.pth/out.pth cannot be written'):
        convert(classifier[0], classifier[0] / 'out.pth', '--to', 'mmdet')


def test_the_tool_converts(tool, classifier, tmp_path):
    done = tool('convert_checkpoint.py', classifier[0], tmp_path / 'out.pth', '--to', 'mmdet')
    assert done.stdout.splitlines()[-1] == f'{tmp_path}/out.pth: 96 weights written'
