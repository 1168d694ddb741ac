"""Models found by name."""

import mmcv
import mmdet.apis
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from pvt_mm.apis import DetInferencer, MMSegInferencer, find_config, list_models
from pvt_mm.errors import CheckpointError, SettingError


@pytest.fixture
def image(digits):
    return mmcv.imread(next(path for path in sorted((digits / 'coco/val2017').iterdir())))


@pytest.fixture
def weights(tmp_path):
    """A checkpoint of RetinaNet PVT-Tiny, as training leaves one."""
    cfg = Config.fromfile(find_config('retinanet/pvt_tiny_1x'))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'tiny.pth')
    return tmp_path / 'tiny.pth'


@pytest.mark.parametrize('name', ['retinanet_pvt_tiny_1x', 'retinanet/pvt_tiny_1x'])
def test_det_inferencer_takes_a_name_and_its_public_weights(image, weights, monkeypatch, tmp_path, name):
    (entry,) = list_models('^retinanet_pvt_tiny_1x$')
    cache = tmp_path / 'hub/checkpoints'  # where torch keeps what it fetched
    cache.mkdir(parents=True)
    weights.rename(cache / entry['Weights'].rpartition('/')[2])
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    inferencer = DetInferencer(name, device='cpu', show_progress=False)
    assert type(inferencer.model.backbone).__name__ == 'PVT'
    (found,) = inferencer(image)['predictions']
    assert set(found) == {'bboxes', 'labels', 'scores'}
    assert inferencer.cfg.filename.endswith(entry['Config'])


def test_mmdets_own_inferencer_takes_the_path_of_a_shipped_config(image, weights):
    config = str(find_config('retinanet/pvt_tiny_1x'))
    inferencer = mmdet.apis.DetInferencer(config, str(weights), device='cpu', show_progress=False)
    (found,) = inferencer(image)['predictions']
    assert set(found) == {'bboxes', 'labels', 'scores'}


def test_names_of_others_stay_theirs():
    cfg, weights = DetInferencer._load_model_from_metafile(scoped(DetInferencer, 'mmdet'), 'rtmdet-t')
    assert cfg.model.type == 'RTMDet' and weights.startswith('https://')
    with pytest.raises(ValueError, match='Cannot find model: retinanet_pvt_tiny_1x in mmdet'):
        mmdet.apis.DetInferencer('retinanet_pvt_tiny_1x')  # mmdet looks in its own folder alone


def scoped(kind: type, scope: str) -> object:
    inferencer = kind.__new__(kind)
    inferencer.scope = scope
    return inferencer


@pytest.mark.parametrize(
    'kind,name', [(DetInferencer, 'detr_pvt_small_50e'), (MMSegInferencer, 'trans2seg_r50_d16_40k')]
)
def test_a_model_without_public_weights_asks_for_a_checkpoint(kind, name):
    with pytest.raises(SettingError, match=f'{name}: nobody publishes its weights; give a checkpoint, as weights=FILE'):
        kind(name, device='cpu')


def test_every_models_name_is_also_one_for_the_commands():
    for entry in list_models():
        assert find_config(entry['Name']) == find_config(entry['Config'].removeprefix('configs/'))


def test_without_a_network_the_error_says_which_file_to_put_where(monkeypatch, tmp_path):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setenv('https_proxy', 'http://127.0.0.1:9')  # where nobody listens
    monkeypatch.delenv('no_proxy', raising=False)
    (entry,) = list_models('^retinanet_pvt_tiny_1x$')
    file = tmp_path / 'hub/checkpoints' / entry['Weights'].rpartition('/')[2]
    with pytest.raises(CheckpointError, match=f'{entry["Weights"]} cannot be fetched .* and put it at {file}$'):
        DetInferencer('retinanet_pvt_tiny_1x', device='cpu')


def test_a_file_that_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / 'page.pth').write_text('<html>')
    with pytest.raises(CheckpointError, match='page.pth cannot be read, it is a web page'):
        DetInferencer('retinanet_pvt_tiny_1x', str(tmp_path / 'page.pth'), device='cpu')


def test_a_checkpoint_alone_brings_its_config(weights, image):
    checkpoint = torch.load(weights)
    checkpoint['meta']['cfg'] = Config.fromfile(find_config('retinanet/pvt_tiny_1x')).pretty_text
    torch.save(checkpoint, weights)
    (found,) = DetInferencer(weights=str(weights), device='cpu', show_progress=False)(image)['predictions']
    assert set(found) == {'bboxes', 'labels', 'scores'}


@pytest.mark.parametrize(
    'kind, name, nearest',
    [
        (DetInferencer, 'retinanet_pvt_smal_1x', 'pvt_mm or mmdet, as .*retinanet_pvt_small_1x'),
        (DetInferencer, 'rtmdet_tiny_8xb32-300e_coc', 'pvt_mm or mmdet, as .*rtmdet_tiny_8xb32-300e_coco'),
        (MMSegInferencer, 'semantic_fpn/pvt_smal_80k', 'pvt_mm or mmseg, as .*semantic_fpn_pvt_small_80k'),
        (MMSegInferencer, 'zzz', 'pvt_mm or mmseg, as retinanet_r18_1x'),
    ],
)
def test_a_name_that_nobody_has_is_refused_with_the_nearest(kind, name, nearest):
    with pytest.raises(SettingError, match=f'^model {name} does not exist: .* of {nearest}'):
        kind(name, device='cpu')


@pytest.mark.parametrize(
    'kind, name, says',
    [
        (MMSegInferencer, 'retinanet_pvt_small_1x', 'of mmdet, for which there is pvt_mm.apis.DetInferencer'),
        (DetInferencer, 'semantic_fpn/pvt_small_80k', 'of mmseg, for which there is pvt_mm.apis.MMSegInferencer'),
        (DetInferencer, 'classification_pvt_small_300e', 'of mmpretrain, for which there is mmpretrain.Image'),
    ],
)
def test_a_model_of_another_library_is_refused(kind, name, says):
    for model in (name, str(find_config(name))):
        with pytest.raises(SettingError, match=f'^{model} is {says}'):
            kind(model, device='cpu')


def test_list_models_finds_by_a_part_of_the_name():
    names = [entry['Name'] for entry in list_models('pvt_v2_b2_li')]
    assert {'retinanet_pvt_v2_b2_li_1x', 'sparse_rcnn_pvt_v2_b2_li_3x'} < set(names)
    assert all('pvt_v2_b2_li' in name for name in names)
