"""Training, resuming and testing classifiers with the tools, on crops of the digits."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from pvt_mm.commands import check_data, init, test, train
from pvt_mm.engine.exact import ExactBatchSampler
from tests.common import ALONE, ROOT

SHORT = (*ALONE, 'train_cfg.max_epochs=2', 'default_hooks.logger.interval=1')


@pytest.mark.parametrize('backbone', ['pvt', 'pvt_v2', 'r18'])
def test_a_classifier_trains_resumes_exactly_and_is_tested(command, crops, tmp_path, backbone):
    config = f'classification/{backbone}_nano_digits'

    def run(name, *flags):
        work_dir = tmp_path / name
        flags = ('--work-dir', work_dir, '--data-root', crops, *flags, '--cfg-options', *SHORT)
        assert command(train, config, *flags) is None
        return torch.load(work_dir / 'epoch_2.pth', weights_only=False)['state_dict']

    whole = run('whole')
    (tmp_path / 'resumed').mkdir()
    shutil.copy(tmp_path / 'whole/epoch_1.pth', tmp_path / 'resumed')
    resumed = run('resumed', '--resume')
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert (tmp_path / 'whole/report.html').is_file()
    flags = (
        '--work-dir',
        tmp_path / 'test',
        '--data-root',
        crops,
        '--out',
        tmp_path / 'out.pkl',
        '--cfg-options',
        *ALONE,
    )
    assert command(test, config, tmp_path / 'whole/epoch_2.pth', *flags) is None
    (scores,) = (tmp_path / 'test').glob('*/[0-9]*.json')
    assert 0 <= json.loads(scores.read_text())['accuracy/top1'] <= 100 and (tmp_path / 'out.pkl').is_file()


def test_a_backbones_own_weights_are_tested_as_they_are(command, crops, tmp_path):
    """As the published ones, which stand without ``backbone.``."""
    cfg = Config.fromfile(ROOT / 'configs/classification/pvt_nano_digits.py')
    torch.save(MODELS.build(cfg.model.backbone).state_dict(), tmp_path / 'pvt.pth')
    flags = ('--work-dir', tmp_path / 'test', '--data-root', crops, '--cfg-options', *ALONE)
    assert command(test, 'classification/pvt_nano_digits', tmp_path / 'pvt.pth', *flags) is None


def test_weights_of_a_classifier_start_a_detector(command, crops, tmp_path):
    flags = (
        '--work-dir',
        tmp_path / 'classifier',
        '--data-root',
        crops,
        '--cfg-options',
        *ALONE,
        'train_cfg.max_epochs=1',
    )
    assert command(train, 'classification/pvt_nano_digits', *flags) is None
    weights = tmp_path / 'classifier/epoch_1.pth'
    settings = ('model.backbone.init_cfg.type=Pretrained', f'model.backbone.init_cfg.checkpoint={weights}')
    flags = (
        '--work-dir',
        tmp_path / 'detector',
        '--data-root',
        crops.parent / 'coco',
        '--cfg-options',
        *ALONE,
        *settings,
    )
    assert command(train, 'retinanet/pvt_nano_digits', *flags, 'train_cfg.max_epochs=1') is None
    log = next((tmp_path / 'detector').glob('*/*.log')).read_text()
    assert 'epoch_1.pth: ' in log and 'left out, as they belong to the classifier' in log
    assert 'position embeddings resized (4)' in log and 'MISSING' not in log


def test_folders_of_ones_own_images_train_by_one_command(command, crops, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(init, crops, '--task', 'classification', '--out', 'mine.py') is None
    settings = (*ALONE, 'train_cfg.max_epochs=1', 'model.backbone.init_cfg=None', 'model.backbone.arch=tiny')
    assert command(train, 'mine.py', '--cfg-options', *settings) is None
    assert list((tmp_path / 'work_dirs').rglob('best_accuracy_top1_epoch_1.pth'))


def test_images_without_a_split_are_listed(command, crops, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(crops / 'train', 'flat')
    assert command(init, 'flat', '--task', 'classification', '--out', 'mine.py') is None
    assert command(check_data, 'mine.py') is None
    cfg = Config.fromfile('mine.py')
    assert cfg.train_dataloader.dataset.ann_file == 'pvt_mm/train.txt' and cfg.model.backbone.num_classes == 10
    lists = [Path(f'flat/pvt_mm/{name}.txt').read_text() for name in ('train', 'val')]
    listed = [line.split() for text in lists for line in text.splitlines()]
    assert len(listed) == sum(path.is_file() for path in crops.glob('train/*/*'))
    assert all(file.split('/')[0] == number for file, number in listed)  # the digits are named by their numbers


def test_faults_of_folders_end_a_run_in_one_line(command, crops, tmp_path, capfd):
    root = tmp_path / 'classes'
    shutil.copytree(crops, root)
    check = (train, 'classification/pvt_nano_digits', '--data-root', root, '--work-dir', tmp_path / 'run', '--check')
    shutil.move(root / 'val/3', root / 'val/33')
    assert 'val has the classes 33 beyond and lacks the classes 3 of those of train_dataloader' in command(*check)
    assert command(check_data, 'classification/pvt_nano_digits', '--data-root', root) == 1
    (root / 'val/33').rename(root / 'val/3')
    for path in (root / 'train/4').iterdir():
        path.unlink()
    capfd.readouterr()
    assert command(*check) is None
    assert 'train has no image of 1 of the 10 classes: 4' in capfd.readouterr().out
    assert 'set model.backbone.num_classes=10' in command(*check, '--cfg-options', 'model.backbone.num_classes=11')
    next((root / 'val/5').iterdir()).write_bytes(b'')
    assert command(check_data, 'classification/pvt_nano_digits', '--data-root', root) == 1


def test_each_repeat_of_an_image_has_random_numbers_of_its_own():
    from mmpretrain.datasets import RepeatAugSampler

    sampler = ExactBatchSampler(RepeatAugSampler(range(12), num_repeats=3, seed=0), batch_size=6, seed=0)
    sampler.skip = 0
    seen = [(int(index), index.epoch, index.repeat) for batch in sampler for index in batch]
    assert len(set(seen)) == len(seen) == 12 and {repeat for *_, repeat in seen} == {0, 1, 2}
