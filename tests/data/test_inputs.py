"""What is said of images that a backbone would see otherwise than its weights know them, or smaller than it can."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from PIL import Image

from pvt_mm.data.inputs import check_normalisation, check_preprocessor, check_sizes, count_images, load_datasets
from pvt_mm.errors import SettingError

RGB = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
SET_RGB = (
    'set model.data_preprocessor.mean=[123.675,116.28,103.53] model.data_preprocessor.std=[58.395,57.12,57.375] '
    'model.data_preprocessor.bgr_to_rgb=True'
)


def pretrained(checkpoint) -> dict:
    return dict(type='Pretrained', checkpoint=checkpoint)


def check(base: str, checkpoint='pvt://small', **settings) -> list[str]:
    """What is said of PVT-Small in the place of the backbone of one of mmdet's or mmseg's configs."""
    cfg = get_config(base)
    cfg.model.pretrained = None
    cfg.model.backbone = dict(type='PVT', init_cfg=pretrained(checkpoint) if checkpoint else None)
    cfg.merge_from_dict(settings)
    lines = []
    check_normalisation(cfg, lines.append)
    return lines


@pytest.mark.parametrize(
    'base, seen',
    [
        ('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 'BGR, mean 102.98/115.947/122.772, std 1/1/1'),
        ('mmdet::yolox/yolox_s_8xb8-300e_coco.py', 'BGR, mean 0/0/0, std 1/1/1'),
        ('mmdet::rtmdet/rtmdet_l_8xb32-300e_coco.py', 'BGR, mean 103.53/116.28/123.675, std 57.375/57.12/58.395'),
    ],
)
def test_a_base_that_feeds_another_range_is_refused_for_published_weights(base, seen):
    with pytest.raises(SettingError) as error:
        check(base)
    assert str(error.value) == (
        f'model.data_preprocessor gives the backbone {seen}; pvt://small was trained with RGB, mean '
        f'123.675/116.28/103.53, std 58.395/57.12/57.375: {SET_RGB}'
    )
    assert check(base, checkpoint=None) == []  # nothing to be unlike
    lines = dict(setting.split('=') for setting in SET_RGB.removeprefix('set ').split())
    check(base, **{key: json.loads(value.lower()) for key, value in lines.items()})  # the way out is one


@pytest.mark.parametrize(
    'base', ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py']
)
def test_a_base_that_feeds_what_the_weights_know_passes_without_a_word(base):
    assert check(base) == []
    with pytest.raises(SettingError):
        check(base, **{'model.data_preprocessor.bgr_to_rgb': False})


YOLOX = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'


def test_weights_of_unknown_origin_and_weights_that_are_replaced_are_warned_of():
    assert 'a.pth was probably trained with RGB' in check(YOLOX, 'a.pth')[0]
    with pytest.raises(SettingError):
        check(YOLOX, 'dir/pvt_small.pth')
    (line,) = check(YOLOX, load_from='detector.pth')
    assert line.startswith('WARNING: model.data_preprocessor gives the backbone BGR') and SET_RGB in line


@pytest.mark.parametrize(
    'checkpoint, settings, said',
    [
        ('torchvision://resnet50', RGB, None),
        ('torchvision://resnet50', dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0]), 'with RGB'),
        ('open-mmlab://detectron2/resnet50_caffe', dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0]), None),
        ('open-mmlab://detectron2/resnet50_caffe', RGB, 'with BGR, mean 103.53/116.28/123.675, std 1/1/1'),
        ('open-mmlab://resnet50_v1c', {}, 'with RGB'),
        ('some.pth', {}, None),
    ],
)
def test_other_backbones_are_warned_of_by_the_address_of_their_weights(checkpoint, settings, said):
    lines = []
    model = dict(
        data_preprocessor=dict(type='A') | settings, backbone=dict(type='mmdet.ResNet', init_cfg=pretrained(checkpoint))
    )
    check_normalisation(Config(dict(default_scope='mmdet', model=model)), lines.append)
    assert (said in lines[0] and lines[0].startswith('WARNING')) if said else lines == []


def test_the_preprocessor_is_found_where_it_is():
    backbone = dict(type='PVT', init_cfg=pretrained('pvt://tiny'))
    check_normalisation(Config(dict(data_preprocessor=RGB, model=dict(backbone=backbone))))  # the runner's
    branches = dict(type='MultiBranchDataPreprocessor', data_preprocessor=RGB)
    check_normalisation(Config(dict(model=dict(data_preprocessor=branches, detector=dict(backbone=backbone)))))
    classifier = dict(type='ClsDataPreprocessor', mean=RGB['mean'], std=RGB['std'], to_rgb=True)
    check_normalisation(Config(dict(model=dict(data_preprocessor=classifier, backbone=backbone))))
    with pytest.raises(SettingError, match='gives the backbone BGR, mean 0/0/0'):
        check_normalisation(Config(dict(model=dict(backbone=backbone))))


@pytest.mark.parametrize('scope, kind', [('mmdet', 'DetDataPreprocessor'), ('mmseg', 'SegDataPreProcessor')])
def test_a_model_without_a_preprocessor_is_told_which(scope, kind):
    with pytest.raises(
        SettingError, match=f'data_preprocessor is missing, .*: set model.data_preprocessor.type={kind} '
    ):
        check_preprocessor(Config(dict(default_scope=scope, model=dict(backbone=dict(type='PVT')))))
    wrapped = dict(type='DetTTAModel', module=dict(data_preprocessor=RGB))
    check_preprocessor(Config(dict(default_scope=scope, model=wrapped)))
    check_preprocessor(Config(dict(default_scope=scope, model={}, data_preprocessor=RGB)))


def test_images_that_the_pipeline_normalises_or_of_other_channels_are_left_alone():
    backbone = dict(type='PVT', pretrained='pvt://tiny')
    pipeline = [dict(type='Normalize', mean=[0], std=[1])]
    check_normalisation(Config(dict(model=dict(backbone=backbone), train_dataloader=dict(dataset=dict(p=pipeline)))))
    grey = dict(mean=[120.0], std=[60.0])
    check_normalisation(Config(dict(model=dict(data_preprocessor=grey, backbone=dict(backbone, in_channels=1)))))


def coco_cfg(folder, pipeline, side=20, size=(640, 480), preprocessor=None, backbone=None) -> Config:
    """A dataset of one image with four square objects."""
    objects = [
        dict(id=i, image_id=1, category_id=1, bbox=[30 * i, 5, side, side], area=side**2, iscrowd=0) for i in range(4)
    ]
    image = dict(id=1, file_name='a.jpg', width=size[0], height=size[1])
    data = dict(images=[image], annotations=objects, categories=[dict(id=1, name='ship')])
    (folder / 'a.json').write_text(json.dumps(data))
    dataset = dict(
        type='CocoDataset',
        ann_file=str(folder / 'a.json'),
        data_prefix=dict(img=''),
        metainfo=dict(classes=('ship',)),
        pipeline=pipeline,
    )
    model = dict(data_preprocessor=preprocessor or {}, backbone=backbone or dict(type='PVT'))
    return Config(dict(default_scope='mmdet', model=model, train_dataloader=dict(dataset=dataset)))


def sizes(cfg, part='train_dataloader', padding=True) -> list[str]:
    lines = []
    check_sizes(cfg, load_datasets(cfg, part), padding, lines.append)
    return lines


def resize(scale, **settings) -> list[dict]:
    return [dict(type='Resize', scale=scale, keep_ratio=True) | settings]


@pytest.mark.parametrize(
    'pipeline, median',
    [
        (resize((64, 48)), '2.0'),
        (resize((64, 48), type='mmdet.Resize', keep_ratio=False), '2.0'),
        (resize(None, scale_factor=0.1), '2.0'),
        (resize([(64, 48), (32, 32)], type='RandomResize'), '2.0'),
        (resize((640, 480), type='RandomResize', ratio_range=(0.05, 0.1)), '2.0'),
        ([dict(type='RandomChoiceResize', scales=[(64, 48), (32, 24)], keep_ratio=True)], '2.0'),
        ([dict(type='RandomChoice', transforms=[resize((64, 48)), resize((32, 24))])], '2.0'),
        (resize((640, 480)) + resize((64, 48)), '2.0'),
        (resize((160, 160)), None),  # 5 px
        (resize([(64, 48), (640, 480)], type='RandomResize'), None),  # at times seen
        ([dict(type='RandomCrop', crop_size=(64, 64))], None),  # objects keep their size
        (resize((64, 48)) + [dict(type='Mosaic')], None),  # unknown
    ],
)
def test_objects_that_resizing_makes_too_small_are_counted(tmp_path, pipeline, median):
    said = sizes(coco_cfg(tmp_path, pipeline), padding=False)
    if median is None:
        assert said == []
    else:
        assert len(said) == 1 and f'makes 4 of 4 objects smaller than 4 px (median {median} px)' in said[0]


@pytest.mark.parametrize(
    'pipeline, preprocessor, seen',
    [
        (resize((333, 333)), dict(pad_size_divisor=32), None),
        (resize((333, 333)), dict(pad_size_divisor=16), ('336x256', '16 columns and 0 rows')),
        (resize((333, 333)), {}, ('333x250', '13 columns and 26 rows')),
        (resize((128, 128), keep_ratio=False), {}, None),
        ([dict(type='RandomCrop', crop_size=(96, 128))], {}, None),
        ([dict(type='Pad', size_divisor=64)], {}, None),
        ([*resize((333, 333)), dict(type='Albu')], {}, None),
    ],
)
def test_strips_that_fill_no_patch_are_named_with_the_setting(tmp_path, pipeline, preprocessor, seen):
    said = sizes(coco_cfg(tmp_path, pipeline, preprocessor=preprocessor))
    if seen is None:
        assert said == []
    else:
        assert f'reach the backbone with {seen[0]} px. It does not see the last {seen[1]}' in said[0]
        assert said[0].endswith('fill no patch of 32 px: set model.data_preprocessor.pad_size_divisor=32')


def test_strips_depend_on_the_backbone(tmp_path):
    pipeline = resize((120, 120), keep_ratio=False)
    for backbone, stride in {
        'PVT': dict(type='PVT', out_indices=(0, 1)),
        'ColumnarViT': dict(type='ColumnarViT', patch_size=12),
        'ResNet': dict(type='ResNet'),
    }.items():
        assert sizes(coco_cfg(tmp_path, pipeline, backbone=stride)) == [], backbone
    assert 'no patch of 16 px' in sizes(coco_cfg(tmp_path, pipeline, backbone=dict(type='ColumnarViT')))[0]


def test_a_segmenters_sizes_are_those_of_its_files(tmp_path):
    for folder in ('images', 'maps'):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((70, 64), np.uint8)).save(tmp_path / folder / 'a.png')
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(tmp_path),
        img_suffix='.png',
        data_prefix=dict(img_path='images', seg_map_path='maps'),
        metainfo=dict(classes=('sky',)),
        pipeline=[dict(type='LoadImageFromFile')],
    )
    loader = dict(dataset=dataset)
    cfg = Config(
        dict(
            default_scope='mmseg',
            model=dict(data_preprocessor=dict(type='SegDataPreProcessor', size=(96, 64)), backbone=dict(type='PVT')),
            train_dataloader=loader,
            val_dataloader=loader,
        )
    )
    assert sizes(cfg) == []  # padded to 96x64
    assert sizes(cfg, 'val_dataloader')[0].endswith('set model.data_preprocessor.test_cfg.size_divisor=32')
    cfg.model.data_preprocessor.test_cfg = dict(size_divisor=32)
    assert sizes(cfg, 'val_dataloader') == []
    del cfg.model.data_preprocessor.test_cfg
    (tmp_path / 'images/a.png').write_bytes(b'')  # of no size, which loading says
    assert sizes(cfg, 'val_dataloader') == []


def test_the_images_of_wrapped_datasets_are_counted(tmp_path):
    leaf = coco_cfg(tmp_path, []).train_dataloader.dataset
    wrapped = dict(type='RepeatDataset', times=3, dataset=dict(type='ConcatDataset', datasets=[leaf, dict(leaf)]))
    cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=wrapped)))
    loaded = load_datasets(cfg, 'train_dataloader')
    assert count_images(cfg.train_dataloader.dataset, loaded) == 6
    assert count_images(cfg.train_dataloader.dataset, loaded[1:]) is None


def test_a_large_file_is_not_read_for_its_sizes(tmp_path, monkeypatch):
    cfg = coco_cfg(tmp_path, [])
    assert len(load_datasets(cfg, 'train_dataloader')) == 1
    monkeypatch.setattr('pvt_mm.data.annotations.LARGE', 10)
    assert load_datasets(cfg, 'train_dataloader') == []
