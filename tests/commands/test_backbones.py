"""What is said of a config that puts a backbone of ours into somebody else's model, before the model is built."""

import pytest
from mmengine.config import Config

from pvt_mm.commands import get_flops, train
from pvt_mm.commands.backbones import check_backbones, check_base_pretrained
from pvt_mm.commands.launch import CONFIGS
from pvt_mm.errors import SettingError
from tests.common import NANO

FASTER = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
RETINANET = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
C4 = 'mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py'
YOLOF = 'mmdet::yolof/yolof_r50-c5_8xb8-1x_coco.py'
MASK2FORMER = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
UPERNET = 'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py'
DEEPLAB = 'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py'
KNET = 'mmseg::knet/knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512.py'
OCRNET = 'mmseg::ocrnet/ocrnet_hr18_4xb4-80k_ade20k-512x512.py'
ALL = [64, 128, 320, 512]
FITS = 'decode_head=dict(in_channels=[64, 128, 320, 512]), auxiliary_head=dict(in_channels=320)'  # UPerNet's
VIT = "type='ColumnarViT', num_layers=4, out_indices=(0, 1, 2, 3)"


@pytest.fixture
def config(tmp_path):
    """The config with ``backbone`` in the place of a base's own and other settings of the model."""

    def write(base: str, backbone: str = "type='PVT', arch='tiny'", model: str = '', delete: bool = True) -> Config:
        (tmp_path / 'config.py').write_text(
            f"_base_ = {base!r}\ncustom_imports = dict(imports=['pvt_mm'])\n"
            f'model = dict(backbone=dict(_delete_={delete}, {backbone}), {model})\n'
        )
        return Config.fromfile(tmp_path / 'config.py')

    return write


DROP = 'if it came from a base config, drop it with model.pretrained=None, in a file model = dict(pretrained=None)'


def test_weights_that_a_base_config_names_for_another_backbone_are_refused(config):
    cfg = config(UPERNET, model=FITS)
    check_backbones(cfg)
    with pytest.raises(SettingError) as error:
        check_base_pretrained(cfg)
    assert str(error.value) == (
        "model.pretrained='open-mmlab://resnet50_v1c' is another backbone's, and the PVT has no init_cfg, which would "
        f'be used in its place: {DROP}'
    )
    for address in (None, 'pvt://tiny', 'a.pth', 'https://somewhere/resnet.pth', 'mmcls://pvt_tiny'):
        cfg.model.pretrained = address  # may be meant
        check_base_pretrained(cfg)
    cfg.model.pretrained = 'torchvision://resnet50'
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='pvt://tiny')
    check_base_pretrained(cfg)  # init_cfg holds


def test_two_settings_of_pretrained_weights_are_named(config):
    cfg = config(UPERNET, "type='PVT', arch='tiny', pretrained='pvt://tiny'", FITS)
    with pytest.raises(SettingError) as error:
        check_backbones(cfg)
    assert str(error.value) == (
        "model.pretrained='open-mmlab://resnet50_v1c' and model.backbone.pretrained='pvt://tiny' are both set, and "
        f'mmseg takes one of them alone. As for the first, {DROP}'
    )
    cfg.model.pretrained = None
    check_backbones(cfg)


def test_keys_that_the_base_configs_backbone_takes_are_named(config):
    cfg = config(UPERNET, "type='PVT', arch='tiny'", FITS, delete=False)
    with pytest.raises(SettingError) as error:
        check_backbones(cfg)
    assert str(error.value) == (
        'model.backbone: PVT does not take depth, num_stages, dilations, strides, norm_cfg, norm_eval, style, '
        'contract_dilation. If a base config sets what its own backbone takes, drop that with backbone=dict('
        "_delete_=True, type='PVT', ...)"
    )
    cfg.model = dict(type='SegTTAModel', module=cfg.model)
    with pytest.raises(SettingError, match='^model.backbone: PVT does not take depth'):
        check_backbones(cfg)


def test_a_value_out_of_its_range_is_named(config):
    with pytest.raises(SettingError, match="^model.backbone: arch='huge' is none of tiny, "):
        check_backbones(config(FASTER, "type='PVT', arch='huge'"))


@pytest.mark.parametrize(
    'base, backbone, model, fault',
    [
        (FASTER, "type='PVT'", '', ('neck', [256, 512, 1024, 2048], ALL)),
        (FASTER, "type='PVT', out_indices=(1, 2, 3)", f'neck=dict(in_channels={ALL})', ('neck', ALL, ALL[1:])),
        (FASTER, "type='PVTv2', arch='b0'", f'neck=dict(in_channels={ALL})', ('neck', ALL, [32, 64, 160, 256])),
        (FASTER, VIT, f'neck=dict(in_channels={ALL})', ('neck', ALL, [768] * 4)),
        (FASTER, f"type='PVT', arch={NANO}", 'neck=dict(in_channels=[16, 32, 48, 60])',
         ('neck', [16, 32, 48, 60], [16, 32, 48, 64])),
        (RETINANET, "type='PVT'", '', ('neck', [256, 512, 1024, 2048], ALL)),
        (RETINANET, "type='PVT'", 'neck=dict(in_channels=[256, 128, 320, 512])', None),  # of the second map on
        (C4, "type='PVT', out_indices=(2,)", '', ('rpn_head', 1024, 320)),
        (C4, "type='PVT', out_indices=(2,)", 'rpn_head=dict(in_channels=320)', None),
        (YOLOF, "type='PVT', out_indices=(3,)", '', ('neck', 2048, 512)),
        (MASK2FORMER, "type='PVT'", '', ('panoptic_head', [256, 512, 1024, 2048], ALL)),
        (UPERNET, "type='PVT'", '', ('decode_head', [256, 512, 1024, 2048], ALL)),
        (UPERNET, "type='PVT'", f'decode_head=dict(in_channels={ALL})', ('auxiliary_head', 1024, 320)),
        (DEEPLAB, "type='PVT'", '', ('decode_head', 2048, 512)),
        (DEEPLAB, "type='PVT'", 'decode_head=dict(in_channels=512)', ('decode_head.c1_in_channels', 256, 64)),
        (KNET, "type='PVT'", '', ('decode_head.kernel_generate_head', [256, 512, 1024, 2048], ALL)),
        (OCRNET, "type='PVT'", '', ('decode_head.0', [18, 36, 72, 144], ALL)),
    ],
)  # fmt: skip
def test_the_channels_of_the_backbones_maps_are_those_of_what_takes_them(config, base, backbone, model, fault):
    cfg = config(base, backbone, model)
    if fault is None:
        check_backbones(cfg)
        return
    place, given, fitting = fault
    place = f'model.{place}' if place.endswith('channels') else f'model.{place}.in_channels'
    given, fitting = (str(value).replace(' ', '') for value in (given, fitting))
    with pytest.raises(SettingError) as error:
        check_backbones(cfg)
    assert str(error.value).startswith(f"{place}={given} does not fit the backbone's maps, which have ")
    assert f'channels: set {place}={fitting}' in str(error.value)


def test_a_map_that_the_backbone_does_not_return_is_named(config):
    cfg = config(UPERNET, "type='PVT', out_indices=(1, 2, 3)", 'decode_head=dict(in_channels=[128, 320, 512])')
    with pytest.raises(SettingError, match=r'model.decode_head.in_index=\[0, 1, 2, 3\] names the map 3 of the 3 that'):
        check_backbones(cfg)


def test_what_the_channels_mean_to_parts_of_other_libraries_is_not_guessed(config):
    reversed_maps = 'neck=dict(type="YOLOV3Neck", num_scales=3, in_channels=[512, 320, 128], out_channels=[9, 9, 9])'
    check_backbones(config(FASTER, "type='PVT', out_indices=(1, 2, 3)", reversed_maps))
    check_backbones(config(FASTER, model='neck=[dict(type="MyNeck", in_channels=[1])]'))
    check_backbones(config(FASTER, "type='ResNet', depth=50", 'neck=dict(in_channels=[1, 2, 3, 4])'))  # not ours


@pytest.mark.parametrize('path', CONFIGS.glob('custom/*.py'), ids=lambda path: path.stem)
def test_the_templates_for_own_data_pass(path):  # the rows of the paper: tests/paper/test_rows.py
    check_backbones(Config.fromfile(path))


def test_commands_end_in_one_line(config, command, digits, tmp_path, capsys):
    config(FASTER)
    message = 'model.neck.in_channels=[256,512,1024,2048] does not fit'
    assert message in command(get_flops, tmp_path / 'config.py')
    config(UPERNET, model=FITS)
    data = ('--data-root', digits / 'ADEChallengeData2016')
    said = command(train, tmp_path / 'config.py', '--check', '--work-dir', tmp_path, *data)
    assert said.startswith("train.py: model.pretrained='open-mmlab://resnet50_v1c' is another backbone's")
