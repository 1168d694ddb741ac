"""A short form of ``make learn``: every system overfits 16 digit scenes in a minute or so, far above chance."""

import re

import pytest

pytestmark = pytest.mark.slow

# Passes over the 16 scenes, two iterations each, and what must be reached on them. Untrained, every system has an AP of
# 0, and one that calls everything background a mIoU of 7.
DETECTION = (
    'val_dataloader.dataset.ann_file=annotations/instances_train2017.json',
    'val_dataloader.dataset.data_prefix.img=train2017/',
)
SYSTEMS = {
    'retinanet': (60, {'coco/bbox_mAP': 0.6}, DETECTION),
    'mask_rcnn': (60, {'coco/bbox_mAP': 0.3, 'coco/segm_mAP': 0.3}, DETECTION),
    'semantic_fpn': (
        80,
        {'mIoU': 40},
        (
            'val_dataloader.dataset.data_prefix.img_path=images/training',
            'val_dataloader.dataset.data_prefix.seg_map_path=annotations/training',
        ),
    ),
    'detr': (1, {'coco/bbox_mAP': 0.2}, ('train_dataloader.dataset.times=120',)),  # passes in one epoch
}


@pytest.mark.parametrize('system', SYSTEMS)
def test_every_system_learns_16_scenes(tool, digits, tmp_path, system):
    epochs, bars, settings = SYSTEMS[system]
    layout, evaluator = digits / 'coco', ()
    if system == 'semantic_fpn':
        layout = digits / 'ADEChallengeData2016'
    elif system != 'detr':
        evaluator = (f'val_evaluator.ann_file={layout}/annotations/instances_train2017.json',)
    done = tool(
        'train.py',
        f'configs/{system}/pvt_nano_digits.py',
        '--data-root',
        layout,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        f'train_cfg.max_epochs={epochs}',
        f'train_cfg.val_interval={epochs}',
        f'default_hooks.checkpoint.interval={epochs}',
        f'param_scheduler.1.end={epochs}',
        f'param_scheduler.1.T_max={epochs}',
        'param_scheduler.0.end=10',
        *settings,
        *evaluator,
    )
    reached = {key: float(re.findall(rf'{key}: ([-\d.]+)', done.stdout)[-1]) for key in bars}
    assert all(reached[key] >= bar for key, bar in bars.items()), reached
