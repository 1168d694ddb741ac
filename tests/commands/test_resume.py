"""Going on from files that are not what they should be, through the commands."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

SEGMENTER = 'configs/semantic_fpn/pvt_nano_digits.py'


@pytest.fixture(scope='module')
def run(tool, digits):
    """Trains (or tests) the segmenter: ``run(work_dir, *flags, name='train.py', options=(), check=True)``."""

    def start(work_dir, *args, name='train.py', options=(), check=True):
        common = ('--data-root', digits / 'ADEChallengeData2016', '--work-dir', work_dir)
        hook = ('default_hooks.checkpoint.save_best=mIoU', 'default_hooks.checkpoint.max_keep_ckpts=1')
        return tool(name, SEGMENTER, *args, *common, '--cfg-options', *hook, *options, check=check)

    return start


@pytest.fixture(scope='module')
def trained(run, tmp_path_factory) -> Path:
    """A work dir after one epoch, with its best checkpoint."""
    work_dir = tmp_path_factory.mktemp('trained')
    run(work_dir, options=['train_cfg.max_epochs=1'])
    return work_dir


def last_line(done) -> str:
    """The one line that a command ended in."""
    assert done.returncode == 1 and 'Traceback' not in done.stderr, done.stderr[-2000:]
    return done.stderr.splitlines()[-1]


def test_a_run_with_a_best_checkpoint_resumes_and_removes_nothing_outside_its_work_dir(run, trained, tmp_path):
    work_dir, precious = tmp_path / 'work', tmp_path / 'precious'
    shutil.copytree(trained, work_dir)
    precious.mkdir()
    checkpoint = torch.load(work_dir / 'epoch_1.pth', weights_only=True)
    info = checkpoint['message_hub']['runtime_info']
    assert Path(info['best_ckpt']).name == 'best_mIoU_epoch_1.pth' and info['keep_ckpt_ids'] == [1]
    # mmengine makes the file name epoch_{}.pth of each id
    info.update(best_ckpt=str(precious), best_score=np.float32(-1), keep_ckpt_ids=['/../../precious', 1])
    torch.save(checkpoint, tmp_path / 'crafted.pth')
    (work_dir / 'epoch_').mkdir()
    (tmp_path / 'precious.pth').touch()
    done = run(work_dir, '--resume', tmp_path / 'crafted.pth', options=['train_cfg.max_epochs=2'])
    assert 'resumed epoch: 1, iter: 2' in done.stdout and (work_dir / 'epoch_2.pth').is_file()
    assert precious.is_dir() and (tmp_path / 'precious.pth').is_file()
    assert 'best_ckpt of the checkpoint is' in done.stdout and 'keep_ckpt_ids of the checkpoint is' in done.stdout


def test_a_checkpoint_with_a_numpy_score_is_tested(run, trained, tmp_path):
    done = run(tmp_path, trained / 'best_mIoU_epoch_1.pth', name='test.py')
    assert 'mIoU: ' in done.stdout


def test_weights_alone_are_not_resumed(run, trained, tmp_path):
    weights = torch.load(trained / 'epoch_1.pth', weights_only=True)['state_dict']
    torch.save(weights, tmp_path / 'weights.pth')
    line = last_line(run(tmp_path, '--resume', tmp_path / 'weights.pth', check=False))
    assert 'weights.pth is no checkpoint to resume from, it lacks meta.epoch' in line and 'set load_from' in line


def test_resuming_where_nothing_was_saved_starts_from_load_from(run, trained, tmp_path):
    options = ['train_cfg.max_epochs=1', f'load_from={trained / "epoch_1.pth"}']
    done = run(tmp_path, '--resume', options=options)
    assert f'--resume: {tmp_path} holds no checkpoint, the run starts anew' in done.stdout
    assert f'{trained / "epoch_1.pth"}: ' in done.stdout and 'weights loaded' in done.stdout
    assert 'resumed epoch' not in done.stdout and (tmp_path / 'epoch_1.pth').is_file()


def test_a_damaged_checkpoint_is_passed_over_and_one_that_is_named_names_another(run, trained, tmp_path):
    shutil.copy(trained / 'epoch_1.pth', tmp_path)
    (tmp_path / 'epoch_2.pth').write_bytes((trained / 'epoch_1.pth').read_bytes()[:-100])
    (tmp_path / 'last_checkpoint').write_text('/old/epoch_2.pth')
    line = last_line(run(tmp_path, '--resume', tmp_path / 'epoch_2.pth', check=False))
    assert f'beside it: --resume {tmp_path}/epoch_1.pth' in line
    done = run(tmp_path, '--resume', options=['train_cfg.max_epochs=1'])
    assert f'the newest whole checkpoint is {tmp_path}/epoch_1.pth' in done.stdout + done.stderr
    assert 'resumed epoch: 1, iter: 2' in done.stdout


def test_a_run_with_another_learning_rate_is_not_resumed(run, trained, tmp_path):
    options = ['train_cfg.max_epochs=2', 'optim_wrapper.optimizer.lr=0.5']
    done = run(tmp_path, '--resume', trained / 'epoch_1.pth', options=options, check=False)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert 'optim_wrapper.optimizer.lr: ' in done.stderr and '--resume-anyway' in done.stderr


def test_a_work_dir_that_is_a_file_ends_in_one_line(run, tmp_path):
    (tmp_path / 'work').touch()
    line = last_line(run(tmp_path / 'work' / 'inside', check=False))
    assert f'{tmp_path}/work is a file; give a folder with --work-dir' in line
