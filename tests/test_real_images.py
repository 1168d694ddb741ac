"""Every system on real images of COCO and ADE20K, as the tools would run it."""

import re

import pytest

from tests.common import ALONE, losses

pytestmark = pytest.mark.slow

FEW = (
    'train_dataloader.batch_size=1',
    'train_dataloader.dataset.indices=2',
    'val_dataloader.dataset.indices=1',
    'test_dataloader.dataset.indices=2',
)
RETINANET_SETTINGS = ('model.backbone.init_cfg=None', 'model.test_cfg.score_thr=0.0')
# The smallest config of each system, without the pretrained weights and the score below which nothing is shown.
DETECTORS = {
    'retinanet': ('configs/retinanet/pvt_tiny_3x.py', *RETINANET_SETTINGS),
    'mask_rcnn': (
        'configs/mask_rcnn/pvt_tiny_1x.py',
        'model.backbone.init_cfg=None',
        'model.test_cfg.rcnn.score_thr=0.0',
    ),
    'detr': ('configs/detr/pvt_small_50e.py', 'model.backbone.init_cfg=None'),
}


@pytest.mark.parametrize('system', DETECTORS)
def test_detectors_train_resume_and_test_at_the_papers_size(tool, real_coco, tmp_path, system):
    config, *settings = DETECTORS[system]
    common = ('--data-root', real_coco, '--work-dir', tmp_path, '--cfg-options', *ALONE, *FEW, *settings)
    first = tool('train.py', config, *common, 'train_cfg.max_epochs=1')
    assert len(losses(first.stdout)) == 2 and all(0 < value < 100 for value in losses(first.stdout))
    more = tool('train.py', config, '--resume', *common, 'train_cfg.max_epochs=2')
    assert 'resumed epoch: 1, iter: 2' in more.stdout and 'Epoch(train) [2][2/2]' in more.stdout
    done = tool('test.py', config, tmp_path / 'epoch_2.pth', *common)
    figures = re.findall(r'Average (?:Precision|Recall) .*? = -?\d', done.stdout)
    assert len(figures) == (24 if system == 'mask_rcnn' else 12)


def test_a_segmenter_trains_resumes_and_tests_at_the_papers_size(tool, real_ade, tmp_path):
    config = 'configs/semantic_fpn/pvt_tiny_80k.py'
    common = (
        '--data-root',
        real_ade,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *ALONE,
        'model.backbone.init_cfg=None',
        'train_dataloader.batch_size=2',
        'default_hooks.checkpoint.interval=2',
        'train_cfg.val_interval=2',
        'val_dataloader.dataset.indices=1',
        'test_dataloader.dataset.indices=3',
    )
    first = tool('train.py', config, *common, 'train_cfg.max_iters=2')
    values = [float(value) for value in re.findall(r'Iter\(train\).*?  loss: (\S+)', first.stdout)]
    assert len(values) == 2 and all(0 < value < 10 for value in values)
    more = tool('train.py', config, '--resume', *common, 'train_cfg.max_iters=4')
    assert 'resumed epoch: 0, iter: 2' in more.stdout and 'Iter(train) [4/4]' in more.stdout
    done = tool('test.py', config, tmp_path / 'iter_4.pth', *common)
    assert re.search(r'Iter\(test\) \[3/3\].*mIoU: \d', done.stdout)


def test_a_segmenter_is_tested_at_several_scales_and_flipped(tool, real_ade, tmp_path):
    """The pipeline of the row pvt_large_320k, with the smallest model."""
    config = 'configs/semantic_fpn/pvt_tiny_80k.py'
    common = (
        '--data-root',
        real_ade,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *ALONE,
        'model.backbone.init_cfg=None',
        'val_dataloader.dataset.indices=1',
        'test_dataloader.dataset.indices=1',
    )
    tool(
        'train.py',
        config,
        *common,
        'train_dataloader.batch_size=1',
        'train_cfg.max_iters=1',
        'default_hooks.checkpoint.interval=1',
    )
    done = tool('test.py', config, tmp_path / 'iter_1.pth', '--tta', *common)
    assert re.search(r'Iter\(test\) \[1/1\].*mIoU: \d', done.stdout)


def test_the_loss_falls_on_repeated_real_images(tool, real_coco, tmp_path, on_cpu):
    """Two real images at a quarter of their size, the same at each iteration, without the warm-up, in two processes."""
    done = tool(
        'dist_train.sh',
        'configs/retinanet/pvt_small_1x.py',
        2,
        '--data-root',
        real_coco,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *ALONE,
        *RETINANET_SETTINGS,
        'train_dataloader.dataset.indices=2',
        'train_dataloader.batch_size=1',
        'train_cfg.max_epochs=24',
        'val_dataloader.dataset.indices=2',
        'train_dataloader.dataset.pipeline.2.scale=(333,200)',
        'val_dataloader.dataset.pipeline.1.scale=(333,200)',
        'train_cfg.val_interval=24',
        'default_hooks.checkpoint.interval=24',
        'param_scheduler.0.start_factor=1.0',
        'param_scheduler.1.milestones=[99,100]',
        'randomness.seed=0',
        'model.backbone.drop_path_rate=0.0',
        'train_dataloader.dataset.pipeline.3.prob=0.0',
        env=on_cpu,
    )
    values = losses(done.stdout)
    assert len(values) == 24 and sum(values[-4:]) < 0.85 * sum(values[:4]), values
