import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from paper import qualitative
from tests.common import ROOT

CONFIGS = [f'{system}/pvt_v2_nano_digits' for system in ('retinanet', 'mask_rcnn', 'semantic_fpn')]


@pytest.fixture
def checkpoints(tmp_path) -> list:
    """Those of three models with random weights."""
    paths = []
    for config in CONFIGS:
        cfg = Config.fromfile(ROOT / 'configs' / f'{config}.py')
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        paths.append(tmp_path / f'{len(paths)}.pth')
        torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), paths[-1])
    return paths


def test_the_page_has_a_row_for_each_image_and_a_column_for_each_system(command, checkpoints, digits, tmp_path):
    images = sorted((digits / 'coco/val2017').iterdir())[:2]
    options = ('--configs', *CONFIGS, '--score-thr', 0, '--out', tmp_path / 'out', '--device', 'cpu')
    assert command(qualitative, *checkpoints, *images, *options) is None
    height, width = cv2.imread(str(tmp_path / 'out/qualitative.jpg')).shape[:2]
    assert (height, width) == (600, 900)
    for system in ('retinanet', 'mask_rcnn', 'semantic_fpn'):
        for image in images:
            picture = cv2.imread(str(tmp_path / f'out/{system}/vis/{image.name}'))
            drawn, given = picture.astype(int), cv2.imread(str(image)).astype(int)
            assert drawn.shape == given.shape and abs(drawn - given).max() > 100


def test_checkpoints_in_the_wrong_order_end_in_one_line(command, checkpoints, digits, tmp_path):
    code = command(qualitative, *checkpoints[::-1], digits / 'coco/val2017', '--configs', *CONFIGS, '--device', 'cpu')
    assert '2.pth does not hold the weights of this RetinaNet' in code
