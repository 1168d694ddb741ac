import argparse
import shutil
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from paper import reproduce
from pvt_mm.commands import check_data, get_flops, launch, train
from pvt_mm.errors import SettingError
from tests.common import ROOT

ALL = ('train_dataloader', 'val_dataloader', 'val_evaluator', 'test_dataloader', 'test_evaluator')


def load(config, **flags) -> Config:
    flags = dict(work_dir=None, data_root=None, cfg_options=None, launcher='none', local_rank=0) | flags
    return launch.load_config(argparse.Namespace(config=str(config), **flags))


def write_config(folder, text) -> str:
    path = folder / 'config.py'
    path.write_text(text)
    return str(path)


def test_a_run_has_a_place_of_its_own(tmp_path):
    assert load('retinanet/pvt_small_1x').work_dir == 'work_dirs/retinanet/pvt_small_1x'
    assert load('retinanet/pvt_small_1x', work_dir='here').work_dir == 'here'
    path = write_config(tmp_path, "work_dir = 'there'")
    assert load(path).work_dir == 'there'
    path = write_config(tmp_path, 'model = dict()')
    assert load(path).work_dir == f'work_dirs/{tmp_path.name}/config'


def test_a_config_is_a_path_or_the_name_of_a_shipped_one(tmp_path, monkeypatch):
    shipped = ROOT / 'configs/retinanet/pvt_small_1x.py'
    for config in ('retinanet/pvt_small_1x', 'retinanet/pvt_small_1x.py', 'retinanet_pvt_small_1x', str(shipped)):
        assert launch.find_config(config) == shipped
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'retinanet').mkdir()
    (tmp_path / 'retinanet/pvt_small_1x.py').touch()  # a file of the user's comes first
    assert launch.find_config('retinanet/pvt_small_1x.py') == Path('retinanet/pvt_small_1x.py')


@pytest.mark.parametrize(
    'config, nearest',
    [
        ('retinanet/pvt_smal_1x', 'retinanet/pvt_small_1x, '),
        ('retinanet_pvt_smal_1x', 'retinanet/pvt_small_1x, '),
        ('no/such/folder/retinanet/pvt_small_1x.py', 'retinanet/pvt_small_1x, '),
        ('_base_/models/nano', 'atss/'),
        ('zzz', 'atss/'),
    ],
)
def test_a_missing_config_is_named_with_the_nearest_shipped_ones(config, nearest):
    with pytest.raises(SettingError, match=f'config {config} does not exist: .* as {nearest}') as error:
        load(config)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('root', ['/other/coco', '/other/coco/', 'data/coco/inside'])
def test_data_root_takes_the_place_of_the_configs_everywhere(root):
    cfg = load('retinanet/pvt_small_1x', data_root=root)
    for name in launch.LOADERS:
        assert cfg[name].dataset.data_root.rstrip('/') == root.rstrip('/')
    for name in launch.EVALUATORS:
        assert cfg[name].ann_file == root.rstrip('/') + '/annotations/instances_val2017.json'


def test_data_root_reaches_wrapped_datasets(tmp_path):
    path = write_config(
        tmp_path,
        "train_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', "
        "datasets=[dict(type='CocoDataset', data_root='data/coco', ann_file='data/coco/a.json'), "
        "dict(type='CocoDataset', data_root='data/coco/', ann_file='data/coconut.json')])))",
    )
    datasets = load(path, data_root='/x').train_dataloader.dataset.dataset.datasets
    assert [d.data_root for d in datasets] == ['/x', '/x']
    assert [d.ann_file for d in datasets] == ['/x/a.json', 'data/coconut.json']


@pytest.mark.parametrize('roots, named', [(('a', 'b'), 'has a, b'), ((), 'has none')])
def test_data_root_refuses_a_config_with_several_or_none(tmp_path, roots, named):
    datasets = [dict(type='CocoDataset', data_root=root) for root in roots]
    path = write_config(tmp_path, f"train_dataloader = dict(dataset=dict(type='ConcatDataset', datasets={datasets}))")
    with pytest.raises(SettingError, match=f'--data-root needs a config with one data_root, and .* {named}'):
        load(path, data_root='/x')


def test_complete_data_passes(digits):
    launch.check_data(load('retinanet/pvt_nano_digits', data_root=str(digits / 'coco')), *ALL)


@pytest.mark.parametrize(
    'lost, part, message',
    [
        ('annotations/instances_train2017.json', 'train_dataloader', 'the annotation file .* is missing'),
        ('annotations/instances_val2017.json', 'val_evaluator', 'the annotation file .* is missing'),
        ('train2017', 'train_dataloader', 'the folder .* is missing or empty'),
        ('val2017', 'test_dataloader', 'the folder .* is missing or empty'),
    ],
)
def test_missing_data_is_named_with_its_source(tmp_path, digits, lost, part, message):
    shutil.copytree(digits / 'coco', tmp_path / 'coco')
    path = tmp_path / 'coco' / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for config, source in {'pvt_small_1x': 'cocodataset.org', 'pvt_nano_digits': 'pvt-mm make_digits'}.items():
        cfg = load(f'retinanet/{config}', data_root=str(tmp_path / 'coco'))
        with pytest.raises(SettingError, match=message) as error:
            launch.check_data(cfg, part)
        assert str(path) in str(error.value) and '--data-root' in str(error.value) and '\n' not in str(error.value)
        assert source in str(error.value) or part == 'val_evaluator'


def test_an_empty_image_folder_is_a_missing_one(tmp_path, digits):
    shutil.copytree(digits / 'coco', tmp_path / 'coco')
    for image in (tmp_path / 'coco' / 'val2017').iterdir():
        image.unlink()
    with pytest.raises(SettingError, match='val2017 is missing or empty'):
        launch.check_data(load('retinanet/pvt_small_1x', data_root=str(tmp_path / 'coco')), *ALL)


def test_maps_of_classes_are_needed_where_a_pipeline_reads_them(tmp_path):
    """mmdet's Mask2Former for instances inherits the folder of the panoptic one."""
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images/a.jpg').touch()
    prefix = dict(img='images', seg='maps')
    dataset = dict(data_root=str(tmp_path), data_prefix=prefix, pipeline=[dict(type='LoadAnnotations', with_mask=True)])
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    launch.check_data(cfg, 'train_dataloader')
    for step in (dict(type='LoadAnnotations', with_seg=True), dict(type='LoadPanopticAnnotations')):
        cfg.train_dataloader.dataset.pipeline = [step]
        with pytest.raises(SettingError, match='maps is missing or empty'):
            launch.check_data(cfg, 'train_dataloader')


def test_data_that_is_not_on_disk_is_left_to_its_backend(tmp_path):
    cfg = Config(dict(train_dataloader=dict(dataset=dict(data_root='s3://bucket/coco', ann_file='a.json'))))
    launch.check_data(cfg, 'train_dataloader')


def test_checkpoints_are_looked_for(tmp_path):
    launch.check_checkpoint(None)
    launch.check_checkpoint('https://somewhere/a.pth')
    with pytest.raises(SettingError, match='checkpoint nowhere.pth does not exist'):
        launch.check_checkpoint('nowhere.pth')
    with pytest.raises(SettingError, match='checkpoint x+ does not exist'):
        launch.check_checkpoint('x' * 5000)
    with pytest.raises(SettingError, match='nowhere.pth does not exist'):
        launch.check_pretrained(dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth'))))
    with pytest.raises(SettingError, match='nowhere.pth does not exist'):
        launch.check_pretrained(dict(pretrained='nowhere.pth'))
    launch.check_pretrained(dict(backbone=dict(init_cfg=None)))
    here = tmp_path / 'a.pth'
    torch.save({}, here)
    init_cfg = dict(type='Pretrained', checkpoint=str(here))
    launch.check_pretrained(dict(pretrained='nowhere.pth', backbone=dict(init_cfg=init_cfg)))  # init_cfg is used


def test_launchers_that_cannot_run_here_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    launch.check_launcher('pytorch')
    launch.check_launcher('slurm')
    with pytest.raises(SettingError, match='--launcher mpi needs CUDA'):
        launch.check_launcher('mpi')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '8')
    with pytest.raises(SettingError, match='8 processes are to run on this machine, which has 2 GPUs'):
        launch.check_launcher('pytorch')


def test_a_gpu_that_mmcv_cannot_use_is_refused(monkeypatch):
    import mmcv.ops

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    launch.check_ops()
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(mmcv.ops, 'get_compiling_cuda_version', lambda: 'not available')
    with pytest.raises(SettingError, match='mmcv was built without its CUDA ops: .* MMCV_CUDA=1'):
        launch.check_ops()


@pytest.mark.parametrize('module', [train, get_flops, check_data])
def test_a_classifier_without_mmpretrain_ends_in_one_line(command, monkeypatch, module):
    monkeypatch.setitem(sys.modules, 'mmpretrain', None)
    message = command(module, 'classification/pvt_nano_digits')
    assert 'pvt_nano_digits.py needs mmpretrain, which cannot be imported here (ModuleNotFoundError' in message
    assert 'make setup EXTRAS=classification' in message and '\n' not in message


def test_table_1_without_mmpretrain_ends_in_one_line(command, monkeypatch):
    monkeypatch.setattr(reproduce, 'find_spec', lambda name: None)
    assert command(reproduce, 'table1', '--dry-run').endswith(
        'table1 needs mmpretrain: call make setup EXTRAS=classification'
    )
