"""Large files of annotations are checked in a process of their own, and no run begins before."""

import json
import os
import shutil
import signal

import pytest
from mmengine.config import Config

from pvt_mm.commands import train
from pvt_mm.data import annotations
from pvt_mm.data.beside import agreement_checked
from pvt_mm.errors import DataError
from tests.common import ALONE
from tests.data.test_agreement import DETECTOR, coco, write_coco


@pytest.fixture
def all_large(monkeypatch):
    monkeypatch.setattr(annotations, 'LARGE', 0)


def config(path, classes=('cat', 'dog')) -> Config:
    return Config(dict(default_scope='mmdet', model=DETECTOR, train_dataloader=coco(path, classes)))


def test_what_a_check_beside_says_is_what_it_says_without(tmp_path, all_large, capfd):
    path = write_coco(tmp_path / 'train.json', ['cat', 'dog', 'cow'])
    lines = {}
    for large in (0, 10**9):
        annotations.LARGE = large
        lines[large] = []
        with agreement_checked(config(path), 'train_dataloader', log=lines[large].append) as hook:
            assert (hook is None) == bool(large)
    assert lines[0] == lines[10**9] and 'cow' in lines[0][0]


def test_no_run_begins_on_faulty_annotations(tmp_path, all_large):
    path = write_coco(tmp_path / 'train.json', ['cat'])
    ran = []
    with pytest.raises(DataError, match='num_classes=2, and the datasets have 1 classes'):
        with agreement_checked(config(path, ['cat']), 'train_dataloader') as hook:
            hook.before_run(None)
            ran.append(True)
    assert not ran


def test_the_fault_in_the_data_is_said_where_building_from_them_fails(tmp_path, all_large):
    path = tmp_path / 'train.json'
    path.write_text('{"images": [')
    with pytest.raises(DataError, match=r'train.json is no file in the form of COCO'):
        with agreement_checked(config(path), 'train_dataloader'):
            json.loads(path.read_text())


def test_a_killed_check_ends_the_run_with_its_code(tmp_path, all_large, monkeypatch):
    monkeypatch.setattr('pvt_mm.data.beside.check_agreement', lambda *_, log: os.kill(os.getpid(), signal.SIGKILL))
    path = write_coco(tmp_path / 'train.json', ['cat', 'dog'])
    with pytest.raises(DataError, match=r'ended with code -9; -9 is most likely a lack of memory. pvt-mm check_data'):
        with agreement_checked(config(path), 'train_dataloader'):
            pass


def test_other_processes_leave_the_check_to_the_first(tmp_path, all_large, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '1')
    path = write_coco(tmp_path / 'train.json', ['cat'])
    with agreement_checked(config(path, ['cat']), 'train_dataloader') as hook:
        assert hook is None


@pytest.mark.parametrize('fault', ['', 'a box of negative width'])
def test_a_training_begins_if_its_large_file_is_sound(digits, tmp_path, fault, all_large, command):
    root = tmp_path / 'coco'
    shutil.copytree(digits / 'coco', root)
    path = root / 'annotations/instances_train2017.json'
    data = json.loads(path.read_text())
    if fault:
        data['annotations'][-1]['bbox'][2] *= -1
    path.write_text(json.dumps(data))
    flags = ['--work-dir', tmp_path / 'run', '--data-root', root, '--cfg-options', *ALONE, 'train_cfg.max_epochs=1']
    said = command(train, 'retinanet/pvt_nano_digits', *flags, 'train_cfg.val_interval=2', 'report=False')
    assert bool(list((tmp_path / 'run').glob('*.pth'))) != bool(fault)
    if fault:
        assert said.startswith('train.py: train_dataloader: ') and 'box of negative width or height' in said
    else:
        assert said is None
