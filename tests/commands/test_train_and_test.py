"""The tools as a user runs them, on the embedded dataset and on real images."""

import json
import pickle
import re
import shutil

import pytest
import torch
from pycocotools.coco import COCO

from pvt_mm.commands import test
from tests.commands.test_predict import checkpoint
from tests.common import ALONE, ROOT, losses

DETECTOR = 'configs/retinanet/pvt_nano_digits.py'
SMALL = (*ALONE, 'train_cfg.val_interval=1')
SEGMENTER = """
_base_ = ['mmseg::_base_/models/fpn_r50.py', 'mmseg::_base_/datasets/ade20k.py', 'mmseg::_base_/default_runtime.py',
          'mmseg::_base_/schedules/schedule_80k.py']
custom_imports = dict(imports=['pvt_mm'])
data_preprocessor = dict(size=(96, 96))
model = dict(
    data_preprocessor=data_preprocessor,
    pretrained={pretrained!r},
    backbone=dict(_delete_=True, type='PVT', img_size=96, arch=dict(
        embed_dims=(16, 32, 48, 64), num_layers=(1, 1, 1, 1), num_heads=(1, 2, 3, 4), mlp_ratios=(2, 2, 2, 2),
        sr_ratios=(8, 4, 2, 1), patch_sizes=(4, 2, 2, 2))),
    neck=dict(in_channels=[16, 32, 48, 64]),
    decode_head=dict(num_classes=150))
crop = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True),
        dict(type='Resize', scale=(96, 96), keep_ratio=False), dict(type='PackSegInputs')]
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=crop))
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2))
"""
TWELVE = ['bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75', 'bbox_mAP_s', 'bbox_mAP_m', 'bbox_mAP_l']


@pytest.fixture(scope='module')
def trained(tool, digits, tmp_path_factory):
    """A work dir with a detector trained for one epoch of four iterations, and what was printed."""
    work_dir = tmp_path_factory.mktemp('work')
    done = tool(
        'train.py',
        DETECTOR,
        '--data-root',
        digits / 'coco',
        '--work-dir',
        work_dir,
        '--auto-scale-lr',
        '--cfg-options',
        *SMALL,
        'train_cfg.max_epochs=1',
        'train_dataloader.batch_size=4',
    )
    return work_dir, done.stdout + done.stderr


@pytest.fixture(scope='module')
def segmenter(tmp_path_factory):
    path = tmp_path_factory.mktemp('configs') / 'segmenter.py'
    path.write_text(SEGMENTER.format(pretrained=None))
    return path


def test_training_leaves_a_checkpoint(trained):
    work_dir, output = trained
    assert len(losses(output)) == 4 and all(value < 100 for value in losses(output))
    assert (work_dir / 'epoch_1.pth').is_file()
    assert 'checks found' in (work_dir / 'report.html').read_text()
    assert 'Scaling the original LR by 0.5.' in output  # 4 images in place of 8
    assert torch.load(work_dir / 'epoch_1.pth', weights_only=True)['meta']['epoch'] == 1


def test_resuming_where_nothing_was_saved_starts_anew_with_the_pretrained_weights(tool, digits, tmp_path):
    done = tool(
        'train.py',
        DETECTOR,
        '--data-root',
        digits / 'coco',
        '--work-dir',
        tmp_path,
        '--resume',
        '--cfg-options',
        'model.backbone.init_cfg.type=Pretrained',
        'model.backbone.init_cfg.checkpoint=nowhere.pth',
        check=False,
    )
    assert done.returncode == 1 and 'checkpoint nowhere.pth does not exist' in done.stderr.splitlines()[-1]


def test_check_only_looks(tool, trained, digits, tmp_path):
    tool('train.py', DETECTOR, '--data-root', digits / 'coco', '--work-dir', tmp_path / 'work', '--check')
    tool(
        'test.py',
        DETECTOR,
        trained[0] / 'epoch_1.pth',
        '--data-root',
        digits / 'coco',
        '--work-dir',
        tmp_path / 'work',
        '--check',
    )
    assert not (tmp_path / 'work').exists()


def test_resuming_goes_on_and_fetches_no_pretrained_weights(tool, trained, digits, tmp_path):
    shutil.copytree(trained[0], tmp_path / 'work')
    (tmp_path / 'work' / 'last_checkpoint').write_text(str(tmp_path / 'work' / 'epoch_1.pth'))
    done = tool(
        'train.py',
        DETECTOR,
        '--data-root',
        digits / 'coco',
        '--work-dir',
        tmp_path / 'work',
        '--resume',
        '--auto-scale-lr',
        '--cfg-options',
        *SMALL,
        'train_cfg.max_epochs=2',
        'train_dataloader.batch_size=4',
        'model.backbone.init_cfg.type=Pretrained',
        'model.backbone.init_cfg.checkpoint=http://127.0.0.1:9/a.pth',
    )
    output = done.stdout + done.stderr
    assert 'resumed epoch: 1, iter: 4' in output and 'Epoch(train) [2][4/4]' in output
    assert 'Epoch(train) [1]' not in output and '127.0.0.1:9/a.pth cannot' not in output


def test_testing_prints_cocos_twelve_figures_and_keeps_what_is_asked(tool, trained, digits, tmp_path):
    done = tool(
        'test.py',
        DETECTOR,
        trained[0] / 'epoch_1.pth',
        '--data-root',
        digits / 'coco',
        '--work-dir',
        tmp_path / 'work',
        '--out',
        tmp_path / 'out.pkl',
        '--show-dir',
        tmp_path / 'pictures',
        '--cfg-options',
        *SMALL,
        'model.test_cfg.score_thr=0.0',
    )
    assert len(re.findall(r'Average (?:Precision|Recall) .*? = -?\d', done.stdout)) == 12
    assert all(f'coco/{name}: ' in done.stdout for name in TWELVE)
    assert len(pickle.loads((tmp_path / 'out.pkl').read_bytes())) == 8
    assert len(list((tmp_path / 'pictures').glob('*.jpg'))) == 8


def test_testing_writes_cocos_results(command, digits, tmp_path):
    config, out = 'mask_rcnn/pvt_nano_digits', tmp_path / 'new' / 'out.json'
    flags = ['--data-root', digits / 'coco', '--work-dir', tmp_path / 'work', '--cfg-options', *ALONE]
    assert command(test, config, checkpoint(config, tmp_path / 'a.pth'), '--out', out, *flags) is None
    assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == ['out.json', 'out.segm.json']
    truth = COCO(digits / 'coco' / 'annotations' / 'instances_val2017.json')
    for name, fields in {
        'out.json': {'image_id', 'category_id', 'bbox', 'score'},
        'out.segm.json': {'image_id', 'category_id', 'bbox', 'score', 'segmentation'},
    }.items():
        results = json.loads((tmp_path / 'new' / name).read_text())
        assert set(results[0]) == fields
        assert truth.loadRes(results).getAnnIds()


@pytest.mark.slow
def test_testing_with_augmentation(tool, trained, digits, tmp_path):
    done = tool(
        'test.py',
        DETECTOR,
        trained[0] / 'epoch_1.pth',
        '--data-root',
        digits / 'coco',
        '--work-dir',
        tmp_path,
        '--tta',
        '--cfg-options',
        *SMALL,
        'model.test_cfg.score_thr=0.0',
    )
    assert 'coco/bbox_mAP: ' in done.stdout and 'MISSING' not in done.stdout


@pytest.mark.slow
def test_a_foreign_checkpoint_is_not_tested(tool, trained, digits, tmp_path):
    checkpoint = torch.load(trained[0] / 'epoch_1.pth', weights_only=True)
    del checkpoint['state_dict']['bbox_head.retina_cls.bias']
    torch.save(checkpoint, tmp_path / 'lacking.pth')
    torch.save({'fc.weight': torch.ones(1)}, tmp_path / 'foreign.pth')
    for name, message in {
        'lacking': 'missing or of another shape are bbox_head.retina_cls.bias',
        'foreign': 'it is a checkpoint of another model',
    }.items():
        done = tool(
            'test.py',
            DETECTOR,
            tmp_path / f'{name}.pth',
            '--data-root',
            digits / 'coco',
            '--work-dir',
            tmp_path,
            check=False,
        )
        assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith('test.py: ')
        assert message in done.stderr.splitlines()[-1] and 'Traceback' not in done.stderr


@pytest.mark.slow
def test_fine_tuning_reports_what_did_not_load(tool, trained, digits, tmp_path):
    # in a file: --cfg-options takes '1' for a number
    (tmp_path / 'three.py').write_text(
        f"_base_ = '{ROOT / DETECTOR}'\n"
        "metainfo = dict(classes=('1', '2', '3'))\n"
        'train_dataloader = dict(dataset=dict(metainfo=metainfo))\n'
        'val_dataloader = dict(dataset=dict(metainfo=metainfo))\n'
        'model = dict(bbox_head=dict(num_classes=3))\n'
    )
    done = tool(
        'train.py',
        tmp_path / 'three.py',
        '--data-root',
        digits / 'coco',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *SMALL,
        'train_cfg.max_epochs=1',
        f'load_from={trained[0] / "epoch_1.pth"}',
        check=False,
    )
    assert 'train_dataloader: the config leaves out 7 categories of' in done.stdout
    assert 'OF ANOTHER SHAPE, not loaded (2): bbox_head.retina_cls.bias (60,), not (18,), bbox_head' in done.stdout
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    'flags, message',
    [
        (['configs/nowhere.py'], 'config configs/nowhere.py does not exist'),
        ([DETECTOR, '--amp'], '--amp needs CUDA'),
        (
            [DETECTOR, '--data-root', '/nowhere'],
            'annotation file /nowhere/annotations/instances_train2017.json is missing',
        ),
        ([DETECTOR, '--auto-scale-lr', '--cfg-options', 'auto_scale_lr.base_batch_size=0'], '--auto-scale-lr needs'),
        (
            [
                DETECTOR,
                '--data-root',
                'DIGITS',
                '--cfg-options',
                'model.backbone.init_cfg.type=Pretrained',
                'model.backbone.init_cfg.checkpoint=http://127.0.0.1:9/a.pth',
            ],
            'http://127.0.0.1:9/a.pth cannot be fetched',
        ),
        (
            [
                DETECTOR,
                '--data-root',
                'DIGITS',
                '--cfg-options',
                'model.bbox_head.num_classes=9',
            ],
            'set model.bbox_head.num_classes=10',
        ),
        ([DETECTOR, '--data-root', 'DIGITS', '--cfg-options', 'load_form=a.pth'], 'is it load_from?'),
        ([DETECTOR, '--data-root', 'DIGITS', '--resume', 'nowhere.pth'], 'checkpoint nowhere.pth does not exist'),
    ],
)
def test_what_is_missing_ends_in_one_line(tool, digits, flags, message, tmp_path):
    if '--amp' in flags and torch.cuda.is_available():
        pytest.skip('CUDA is here')
    flags = [digits / 'coco' if flag == 'DIGITS' else flag for flag in flags]
    done = tool(
        'train.py',
        flags[0],
        '--work-dir',
        tmp_path / 'work',
        *flags[1:],
        check=False,
        env=dict(PYTHONWARNINGS='ignore'),
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith('train.py: ') and message in done.stderr.splitlines()[-1]
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'work').exists()  # before anything was built


@pytest.mark.parametrize(
    'flags, message',
    [
        (['nowhere.pth'], 'checkpoint nowhere.pth does not exist'),
        (['CHECKPOINT', '--out', 'out.txt'], '--out out.txt must end in .json, .pkl'),
        (
            ['CHECKPOINT', '--tta', '--cfg-options', 'model.test_cfg.mask_head=1'],
            '--tta: mmdet does not',
        ),
        (['CHECKPOINT', '--cfg-options', 'model.bbox_head.num_classes=9'], 'set model.bbox_head.num_classes=10'),
    ],
)
def test_what_testing_lacks_ends_in_one_line(tool, trained, digits, flags, message, tmp_path):
    flags = [trained[0] / 'epoch_1.pth' if flag == 'CHECKPOINT' else flag for flag in flags]
    done = tool(
        'test.py', DETECTOR, flags[0], '--data-root', digits / 'coco', '--work-dir', tmp_path, *flags[1:], check=False
    )
    assert done.returncode == 1 and message in done.stderr.splitlines()[-1] and 'Traceback' not in done.stderr


@pytest.mark.slow
def test_two_processes_train_and_test(tool, digits, tmp_path, on_cpu):
    done = tool(
        'dist_train.sh',
        DETECTOR,
        2,
        '--data-root',
        digits / 'coco',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *SMALL,
        'train_cfg.max_epochs=1',
        'train_dataloader.batch_size=4',
        env=on_cpu,
    )
    assert 'Epoch(train) [1][2/2]' in done.stdout + done.stderr  # 16 scenes, 2 x 4 at a time
    assert 'Finished: epoch 1 of 1' in (tmp_path / 'report.html').read_text()
    done = tool(
        'dist_test.sh',
        DETECTOR,
        tmp_path / 'epoch_1.pth',
        2,
        '--data-root',
        digits / 'coco',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *SMALL,
        'model.test_cfg.score_thr=0.0',
        'test_dataloader.batch_size=2',
        env=on_cpu,
    )
    assert 'Epoch(test) [2/2]' in done.stdout and len(re.findall(r'Average (?:Precision|Recall)', done.stdout)) == 12
    trained, tested = (json.loads(path.read_text())['matrix'] for path in sorted(tmp_path.glob('*/mistakes.json')))
    truth = json.loads((digits / 'coco/annotations/instances_val2017.json').read_text())['annotations']
    for matrix in (trained, tested):  # each object once, whichever process had it
        assert sum(map(sum, matrix[:-1])) == len(truth)


@pytest.mark.parametrize('args', [('dist_train.sh', DETECTOR, 2), ('dist_test.sh', DETECTOR, 'nowhere.pth', 2)])
def test_what_is_missing_is_said_once_before_the_processes_start(tool, args, on_cpu):
    done = tool(*args, '--data-root', '/nowhere', check=False, env=dict(on_cpu, PYTHONWARNINGS='ignore'))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and '/nowhere/annotations' in done.stderr


@pytest.mark.slow
def test_segmenters_train_and_test_by_the_same_tools(tool, segmenter, digits, tmp_path):
    ade = digits / 'ADEChallengeData2016'
    tool('train.py', segmenter, '--data-root', ade, '--work-dir', tmp_path, '--cfg-options', *ALONE)
    tested = ('test.py', segmenter, tmp_path / 'iter_2.pth', '--data-root', ade, '--work-dir', tmp_path)
    done = tool(*tested, '--out', tmp_path / 'maps', '--show-dir', tmp_path / 'pictures', '--cfg-options', *ALONE)
    assert 'mIoU: ' in done.stdout
    assert len(list((tmp_path / 'maps').glob('*.png'))) == 8
    assert len(list((tmp_path / 'pictures').rglob('*.png'))) == 8
    done = tool(*tested, '--tta', '--cfg-options', *ALONE)
    assert 'mIoU: ' in done.stdout and 'MISSING' not in done.stdout


@pytest.mark.slow
def test_two_processes_train_a_segmenter_without_syncbn(tool, segmenter, digits, tmp_path, on_cpu):
    done = tool(
        'dist_train.sh',
        segmenter,
        2,
        '--data-root',
        digits / 'ADEChallengeData2016',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *ALONE,
        'model_wrapper_cfg.find_unused_parameters=True',
        env=on_cpu,
    )
    assert done.stdout.count('SyncBN does not run on CPU') == 1
    assert (tmp_path / 'iter_2.pth').is_file()


def test_mmsegs_pretrained_setting_loads_or_raises_by_name(tool, digits, tmp_path):
    (tmp_path / 'segmenter.py').write_text(SEGMENTER.format(pretrained=str(tmp_path / 'foreign.pth')))
    torch.save({'stem.0.weight': torch.ones(1)}, tmp_path / 'foreign.pth')
    done = tool(
        'train.py',
        tmp_path / 'segmenter.py',
        '--data-root',
        digits / 'ADEChallengeData2016',
        '--work-dir',
        tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert 'foreign.pth: none of its 1 weights (stem.0.weight' in done.stderr.splitlines()[-1]
    assert 'named by pretrained; if it came from a base config, drop it with model.pretrained=None' in done.stderr
