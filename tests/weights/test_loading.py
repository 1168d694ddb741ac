import logging

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit
from torch import nn

from pvt_mm.errors import CheckpointError
from pvt_mm.models import PVT, ColumnarViT
from pvt_mm.weights.loading import find_state_dict, load_weights
from pvt_mm.weights.reading import read_checkpoint

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


@pytest.mark.parametrize('kind', [PVT, ColumnarViT])
def test_weights_of_another_model_that_pretrained_names_may_be_those_of_a_base_config(tmp_path, kind):
    torch.save(nn.Sequential(nn.Linear(2, 2)).state_dict(), tmp_path / 'foreign.pth')
    with pytest.raises(
        CheckpointError, match=r'it is a checkpoint of another model. .* drop it with model.pretrained='
    ):
        kind(pretrained=str(tmp_path / 'foreign.pth')).init_weights()


def test_a_checkpoint_without_weights_or_with_shapes_of_another_size_says_so(tmp_path, classifier):
    torch.save(dict(state_dict={}), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='a.pth holds no weights'):
        pretrained(tmp_path / 'a.pth')
    torch.save({key: torch.ones(()) for key in classifier[1]}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r'all of its weights are of another shape: .* \(\), not \('):
        pretrained(tmp_path / 'a.pth')


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
        with pytest.raises(CheckpointError, match=r"a.pth: .* published under 'encoder.': .*prefix='encoder.'"):
            load_weights(Detector(), {f'encoder.{k}': v for k, v in bare.items()} | head, 'a.pth', strict=strict)
        with pytest.raises(CheckpointError, match='a.pth: .* it is a checkpoint of another model'):
            load_weights(Detector(), dict(head), 'a.pth', strict=strict)


def test_a_backbone_is_found_in_a_detectors_file_without_a_prefix(tmp_path, classifier):
    _, weights = classifier
    torch.save(dict(state_dict={f'module.backbone.{k}': v for k, v in weights.items()}), tmp_path / 'detector.pth')
    model = pretrained(tmp_path / 'detector.pth', img_size=96)
    assert torch.equal(model.block1[0].attn.q.weight, weights['block1.0.attn.q.weight'])


@pytest.mark.parametrize(
    'metadata', ['text', None, {'backbone': 5, 'bn': [1], 3: {}}, {'bn': {'version': 'x'}, '': {}}]
)
def test_metadata_that_is_none_is_left_out(tmp_path, metadata):
    model = nn.Module()
    model.backbone, model.bn = PVT(**SETTINGS, img_size=64), nn.BatchNorm2d(1)
    weights = model.state_dict()
    weights._metadata = metadata
    torch.save(weights, tmp_path / 'a.pth')
    report = load_weights(model, find_state_dict(read_checkpoint(str(tmp_path / 'a.pth')), 'a.pth'), 'a.pth')
    assert report.clean and len(report.loaded) == len(weights)
