import logging
import pickle
import subprocess
import sys

import mmengine.runner.checkpoint
import pytest
import torch
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner import load_checkpoint
from torch import nn

from pvt_mm.errors import CheckpointError
from pvt_mm.models import PVT
from pvt_mm.weights.loading import load_weights
from pvt_mm.weights.reading import cached_file, read_checkpoint

SETTINGS = dict(
    arch=dict(
        embed_dims=(16, 32),
        num_layers=(1, 2),
        num_heads=(1, 2),
        mlp_ratios=(2, 2),
        sr_ratios=(2, 1),
        patch_sizes=(4, 2),
    ),
    out_indices=(0, 1),
)


@pytest.fixture
def log(caplog):
    """What the current logger says, as one text."""
    logger = MMLogger.get_instance('test_checkpoint')
    MMLogger._instance_dict['test_checkpoint'] = MMLogger._instance_dict.pop('test_checkpoint')  # the current one
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def classifier(tmp_path):
    """A classification checkpoint in the published form, learned at 64 px, and its weights."""
    torch.manual_seed(1)
    weights = PVT(**SETTINGS, img_size=64, num_classes=7).state_dict()
    torch.save(weights, tmp_path / 'classifier.pth')
    return tmp_path / 'classifier.pth', weights


def pretrained(path, **kwargs) -> PVT:
    model = PVT(**SETTINGS, **{'img_size': 64, **kwargs}, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    model.init_weights()
    return model


def test_a_classification_checkpoint_loads_as_it_is(classifier, log):
    path, weights = classifier
    model = pretrained(path)
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key]), key
    assert log.text.count('cls_token') == 1
    assert 'left out, as they belong to the classifier (5): cls_token, norm.weight, norm.bias, head.weight' in log.text
    assert 'MISSING' not in log.text and 'UNEXPECTED' not in log.text and 'WARNING' not in log.text


def test_position_embeddings_of_another_image_size_are_resized(classifier, log):
    path, weights = classifier
    model = pretrained(path, img_size=(96, 128))
    assert 'position embeddings resized (2): pos_embed1 16x16 to 24x32, pos_embed2 8x8 to 12x16' in log.text
    assert torch.equal(model.pos_embed2[:, 0], weights['pos_embed2'][:, 0])
    # what it computes at that size is what the original computes there
    image = torch.randn(1, 3, 96, 128)
    original = PVT(**SETTINGS, img_size=64)
    load_weights(original, weights, 'weights')
    for ours, expected in zip(model.eval()(image), original.eval()(image), strict=True):
        torch.testing.assert_close(ours, expected)


def test_pretrained_is_short_for_init_cfg(classifier):
    path, weights = classifier
    model = PVT(**SETTINGS, img_size=64, pretrained=str(path))
    model.init_weights()
    assert torch.equal(model.patch_embed1.proj.weight, weights['patch_embed1.proj.weight'])


@pytest.mark.parametrize('kind', ['Pretrained', PretrainedInit])
def test_a_list_of_initialisations_loads_too(classifier, kind):
    path, weights = classifier
    init_cfg = [dict(type='Constant', layer='Linear', val=3.0), dict(type=kind, checkpoint=str(path))]
    model = PVT(**SETTINGS, img_size=96, init_cfg=init_cfg)
    model.init_weights()
    assert torch.equal(model.block1[0].attn.q.weight, weights['block1.0.attn.q.weight'])
    assert model.pos_embed1.shape[1] == 24 * 24 and model.init_cfg == init_cfg
    model = PVT(**SETTINGS, init_cfg=init_cfg[:1])
    model.init_weights()
    assert model.block1[0].attn.q.weight.eq(3).all()


def test_as_many_positions_in_another_shape_are_resized_when_pretrained_and_kept_when_resumed(classifier, log):
    path, weights = classifier  # 16x16 and 8x8
    model = pretrained(path, img_size=(32, 128))  # 8x32 and 4x16
    assert 'pos_embed1 16x16 to 8x32' in log.text
    assert not torch.equal(model.pos_embed1, weights['pos_embed1'])
    again = PVT(**SETTINGS, img_size=(32, 128))
    assert load_weights(again, model.state_dict(), 'own', strict=True).resized == []
    assert torch.equal(again.pos_embed1, model.pos_embed1)


def test_a_prefix_takes_the_backbone_out_of_a_detector(tmp_path, classifier):
    _, weights = classifier
    torch.save(
        dict(state_dict={f'backbone.{k}': v for k, v in weights.items()} | {'head.w': torch.ones(1)}),
        tmp_path / 'detector.pth',
    )
    model = PVT(
        **SETTINGS,
        img_size=64,
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'detector.pth'), prefix='backbone.'),
    )
    model.init_weights()
    assert torch.equal(model.patch_embed1.proj.weight, weights['patch_embed1.proj.weight'])
    model.init_cfg['prefix'] = 'encoder.'
    with pytest.raises(CheckpointError, match="no weight in it begins with 'encoder.'"):
        model.init_weights()


@pytest.mark.parametrize('wrapper', ['state_dict', 'model'])
def test_weights_are_found_inside_training_checkpoints(tmp_path, classifier, wrapper):
    _, weights = classifier
    torch.save({wrapper: {f'module.{k}': v for k, v in weights.items()}, 'epoch': 3}, tmp_path / 'training.pth')
    assert torch.equal(pretrained(tmp_path / 'training.pth').block1[0].attn.q.bias, weights['block1.0.attn.q.bias'])


def test_every_other_key_is_named(tmp_path, classifier, log):
    _, weights = classifier
    weights['block2.1.mlp.fc1.extra'] = torch.ones(1)
    weights['patch_embed1.proj.weight'] = torch.ones(8, 3, 4, 4)
    del weights['block1.0.norm2.bias']
    torch.save(weights, tmp_path / 'odd.pth')
    pretrained(tmp_path / 'odd.pth')
    assert 'MISSING in the checkpoint (1): block1.0.norm2.bias' in log.text
    assert 'UNEXPECTED in the checkpoint (1): block2.1.mlp.fc1.extra' in log.text
    assert 'OF ANOTHER SHAPE, not loaded (1): patch_embed1.proj.weight (8, 3, 4, 4), not (16, 3, 4, 4)' in log.text
    assert 'WARNING' in log.text


def test_a_checkpoint_of_which_nothing_fits_raises(tmp_path):
    torch.save(nn.Sequential(nn.Linear(2, 2)).state_dict(), tmp_path / 'foreign.pth')
    with pytest.raises(CheckpointError, match=r'foreign.pth: none of its 2 weights \(0.weight, .*\) fits the PVT'):
        pretrained(tmp_path / 'foreign.pth')


def test_strict_loading_raises_on_a_missing_weight(classifier):
    _, weights = classifier
    del weights['block1.0.norm2.bias']
    model = PVT(**SETTINGS, img_size=64)
    assert load_weights(model, weights, 'weights').missing == ['block1.0.norm2.bias']
    with pytest.raises(CheckpointError, match='missing or of another shape are block1.0.norm2.bias'):
        load_weights(model, weights, 'weights', strict=True)


def test_the_pvt_inside_a_detector_is_fitted_too(classifier):
    _, weights = classifier

    class Detector(BaseModule):
        def __init__(self):
            super().__init__()
            self.backbone = PVT(**SETTINGS, img_size=96)

    report = load_weights(Detector(), {f'backbone.{k}': v for k, v in weights.items()}, 'weights', strict=True)
    assert len(report.resized) == 2 and len(report.classifier) == 5 and report.clean


class Detector(BaseModule):
    def __init__(self):
        super().__init__()
        self.backbone = PVT(**SETTINGS, img_size=64)
        self.head = nn.Linear(2, 2)


def test_a_detector_without_the_backbones_weights_is_refused_and_the_way_out_named(classifier):
    """The head fits, so that something would be loaded."""
    _, weights = classifier
    head = {'head.weight': torch.ones(2, 2), 'head.bias': torch.ones(2)}
    bare = {key: value for key, value in weights.items() if not key.startswith('head')}
    for strict in (True, False):
        with pytest.raises(CheckpointError, match=r'a.pth: none of .* in the format published at its top: .* init_cfg'):
            load_weights(Detector(), bare | head, 'a.pth', strict=strict)
        with pytest.raises(CheckpointError, match=r"a.pth: .* under 'encoder.': .*prefix='encoder.'"):
            load_weights(Detector(), {f'encoder.{k}': v for k, v in bare.items()} | head, 'a.pth', strict=strict)
        with pytest.raises(CheckpointError, match='a.pth: .* it is a checkpoint of another model'):
            load_weights(Detector(), dict(head), 'a.pth', strict=strict)


def test_a_backbone_is_found_in_a_detectors_file_without_a_prefix(tmp_path, classifier):
    _, weights = classifier
    torch.save(dict(state_dict={f'module.backbone.{k}': v for k, v in weights.items()}), tmp_path / 'detector.pth')
    model = pretrained(tmp_path / 'detector.pth', img_size=96)
    assert torch.equal(model.block1[0].attn.q.weight, weights['block1.0.attn.q.weight'])


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match='checkpoint .*nowhere.pth does not exist'):
        read_checkpoint(str(tmp_path / 'nowhere.pth'))
    torch.save(dict(a=torch.ones(1000)), tmp_path / 'whole.pth')
    for name, content in {
        'cut.pth': (tmp_path / 'whole.pth').read_bytes()[:2000],
        'empty.pth': b'',
        'page.pth': b'<html>not found</html>',
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=f'{name} cannot be read, it is damaged or no checkpoint'):
            read_checkpoint(str(tmp_path / name))
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(CheckpointError, match='holds a list, not a state dict'):
        read_checkpoint(str(tmp_path / 'list.pth'))


def test_a_damaged_download_says_what_to_remove(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    (tmp_path / 'checkpoints' / 'a.pth').write_text('<html>')
    with pytest.raises(CheckpointError, match=f'damaged .*; remove {tmp_path}/checkpoints/a.pth to fetch it again'):
        read_checkpoint('http://127.0.0.1:9/a.pth')


def test_an_address_that_cannot_be_resolved_is_named():
    with pytest.raises(CheckpointError, match='open-mmlab://nothing cannot be resolved .*: give a file or an https'):
        read_checkpoint('open-mmlab://nothing')


class Touch:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


class Getattr:
    """Pickled, it asks for an attribute of something else than a HistoryBuffer."""

    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        return getattr, self.args


@pytest.mark.parametrize('scheme', ['file', 'http', 'torchvision'])
def test_a_checkpoint_that_holds_a_program_is_not_run(tmp_path, scheme, monkeypatch):
    path = tmp_path / 'evil.pth'
    torch.save(dict(state_dict=dict(a=Touch(tmp_path / 'ran'))), path)
    source = str(path)
    if scheme != 'file':  # as if torch.hub had fetched it
        monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
        (tmp_path / 'checkpoints').mkdir()
        path.rename(tmp_path / 'checkpoints' / 'evil.pth')
        source = url = 'http://localhost/evil.pth'
    if scheme == 'torchvision':
        monkeypatch.setattr(mmengine.runner.checkpoint, 'get_torchvision_models', lambda: {'evil': url})
        source = 'torchvision://evil'
    with pytest.raises(CheckpointError, match='holds more than data and was not loaded: .*open'):
        read_checkpoint(source)
    with pytest.raises(pickle.UnpicklingError):  # by mmengine's own loading neither
        load_checkpoint(nn.Linear(1, 1), source)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('args', [(HistoryBuffer, '__init__'), (HistoryBuffer, 'update'), (torch, 'load')])
def test_getattr_in_a_checkpoint_reaches_a_history_buffers_statistics_only(tmp_path, args):
    if args[0] is torch:
        args = (HistoryBuffer.min, '__globals__')
    torch.save(dict(a=Getattr(*args)), tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match='holds more than data and was not loaded'):
        read_checkpoint(str(tmp_path / 'evil.pth'))


def test_what_mmengine_saves_loads_as_data(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save(dict(message_hub=dict(log_scalars={'train/loss': buffer})), tmp_path / 'own.pth')
    loaded = read_checkpoint(str(tmp_path / 'own.pth'))['message_hub']['log_scalars']['train/loss']
    assert loaded.mean() == 1.5 and loaded.statistics('max') == 2


def test_offline_an_address_ends_in_one_line_that_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    url = 'http://127.0.0.1:9/pvt_small.pth'  # the discard port: nobody answers
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(url)
    assert '\n' not in str(error.value)
    assert str(error.value).startswith(f'{url} cannot be fetched (')
    assert str(error.value).endswith(f'put it at {tmp_path}/checkpoints/pvt_small.pth')
    # and there it is found
    torch.save(dict(a=torch.ones(1)), tmp_path / 'a.pth')
    (tmp_path / 'a.pth').rename(cached_file(url))
    assert read_checkpoint(url)['a'] == 1


def test_importing_the_package_changes_no_default_of_torch():
    code = (
        'import torch; before = torch.load, torch.get_default_dtype(), torch.get_num_threads(); import pvt_mm; '
        'assert before == (torch.load, torch.get_default_dtype(), torch.get_num_threads()); '
        'import sys; assert "mmdet" not in sys.modules and "mmseg" not in sys.modules '
        'and "matplotlib.pyplot" not in sys.modules and "sklearn" not in sys.modules'
    )
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True)
