"""Models found by name."""

import mmcv
import mmdet.apis
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from pvt_mm.apis import DetInferencer, MMSegInferencer, find_config, list_models
from pvt_mm.errors import SettingError


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


def test_det_inferencer_takes_a_name_and_its_public_weights(image, weights, monkeypatch, tmp_path):
    (entry,) = list_models('^retinanet_pvt_tiny_1x$')
    cache = tmp_path / 'hub/checkpoints'  # where torch keeps what it fetched
    cache.mkdir(parents=True)
    weights.rename(cache / entry['Weights'].rpartition('/')[2])
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    inferencer = DetInferencer('retinanet_pvt_tiny_1x', device='cpu', show_progress=False)
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


def test_list_models_finds_by_a_part_of_the_name():
    names = [entry['Name'] for entry in list_models('pvt_v2_b2_li')]
    assert {'retinanet_pvt_v2_b2_li_1x', 'sparse_rcnn_pvt_v2_b2_li_3x'} < set(names)
    assert all('pvt_v2_b2_li' in name for name in names)
