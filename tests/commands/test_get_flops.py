import pytest
import torch
from mmengine.config import Config

from pvt_mm.commands.get_flops import build_model, count_multiply_adds, count_parameters
from pvt_mm.errors import SettingError
from pvt_mm.models import PVT
from tests.common import ROOT


def test_attention_counts():
    """A PVT of one layer and one stage, by hand."""
    arch = dict(embed_dims=(8,), num_layers=(1,), num_heads=(2,), mlp_ratios=(4,), sr_ratios=(2,), patch_sizes=(4,))
    with torch.device('meta'):
        model = PVT(arch, img_size=32, out_indices=(0,)).eval()
    tokens, keys = 64, 16
    patches = tokens * 8 * 3 * 16
    attention = tokens * 8 * 8 + keys * 8 * 8 * 4 + keys * 8 * 16 + 2 * tokens * keys * 8 + tokens * 8 * 8
    mlp = 2 * tokens * 8 * 32
    assert sum(count_multiply_adds(model, (32, 32)).values()) == patches + attention + mlp


def test_parts_add_up_and_have_names():
    model = build_model(Config.fromfile(ROOT / 'configs/retinanet/r50_1x.py'))
    parameters = count_parameters(model)
    assert set(parameters) == {'backbone', 'neck', 'bbox_head'}
    assert sum(total for total, _ in parameters.values()) == sum(p.numel() for p in model.parameters())
    assert parameters['backbone'][0] - parameters['backbone'][1] == 225344  # the frozen stem and first stage
    parts = count_multiply_adds(model, (800, 1280))
    assert set(parts) == {'backbone', 'neck', 'bbox_head'}
    assert parts['backbone'] / 1e9 == pytest.approx(83.4, abs=0.1)


def test_regions_are_counted_on_as_many_as_testing_hands_on():
    cfg = Config.fromfile(ROOT / 'configs/mask_rcnn/pvt_tiny_1x.py')
    roi_head = count_multiply_adds(build_model(cfg), (256, 256))['roi_head']
    box = 1000 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * (81 + 320))
    mask = 100 * (4 * 9 * 256 * 256 * 196 + 256 * 256 * 4 * 196 + 256 * 80 * 784)
    assert roi_head == box + mask


def test_what_cannot_be_counted_is_named():
    model = build_model(Config.fromfile(ROOT / 'configs/retinanet/pvt_tiny_1x.py'))
    with pytest.raises(SettingError, match='RetinaNet cannot be counted at 16x16: ValueError: an image of 16x16'):
        count_multiply_adds(model, (16, 16))


def test_the_tool_prints_every_part(tool):
    done = tool('get_flops.py', 'semantic_fpn/pvt_small_80k')
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[2:]}
    assert list(rows) == ['backbone', 'neck', 'decode_head', 'all']
    assert rows['all'] == ['28.24', '28.24', '44.47']


def test_the_tool_counts_a_config_of_somebody_elses(tool, tmp_path):
    (tmp_path / 'faster.py').write_text("""
_base_ = ['mmdet::_base_/models/cascade-rcnn_r50_fpn.py', 'mmdet::_base_/default_runtime.py']
custom_imports = dict(imports=['pvt_mm'])
model = dict(backbone=dict(_delete_=True, type='PVT', arch='tiny'), neck=dict(in_channels=[64, 128, 320, 512]))
""")
    done = tool('get_flops.py', tmp_path / 'faster.py', '--shape', 320, 480)
    assert done.stdout.startswith('CascadeRCNN at 320x480 px') and 'roi_head' in done.stdout
    assert 'no.py does not exist: ' in tool('get_flops.py', tmp_path / 'no.py', check=False).stderr
