import argparse
import json
import re
import shutil

import numpy as np
import pytest
from mmengine.config import Config

from pvt_mm import Runner
from pvt_mm.commands.classwise import MEANS, set_classwise
from pvt_mm.commands.launch import LOADERS, load_config
from tests.common import ROOT

# A class's name is a cell of a table, and part of a key in JSON and in mmengine's message hub.
ODD = ('traffic light', 'a/b', 'x.y', '50% off', "l'eau", '\N{SNOWMAN}', 'timer', 'loss', 'bbox_mAP', 'val/')


def load(config, work_dir, data_root, **options) -> Config:
    options |= {f'{loader}.num_workers': 0 for loader in LOADERS}
    options |= {f'{loader}.persistent_workers': False for loader in LOADERS}
    args = dict(work_dir=str(work_dir), data_root=str(data_root), launcher='none', local_rank=0)
    return load_config(argparse.Namespace(config=str(config), cfg_options=options, **args))


def test_classes_of_any_name_have_an_ap_and_the_best_is_chosen_by_the_mean(digits, tmp_path):
    shutil.copytree(digits / 'coco', tmp_path / 'coco')
    for path in (tmp_path / 'coco' / 'annotations').iterdir():
        content = json.loads(path.read_text())
        for category, name in zip(content['categories'], ODD):
            category['name'] = name
        path.write_text(json.dumps(content))
    (tmp_path / 'config.py').write_text(
        f"_base_ = '{ROOT}/configs/retinanet/pvt_nano_digits.py'\n"
        f'metainfo = dict(classes={ODD})\n'
        'train_dataloader = dict(dataset=dict(metainfo=metainfo))\n'
        'val_dataloader = dict(dataset=dict(metainfo=metainfo))\n'
        'test_dataloader = val_dataloader\n'
        "default_hooks = dict(checkpoint=dict(save_best='auto'))\n"
    )
    options = {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1, 'model.test_cfg.score_thr': 0.0}
    Runner.from_cfg(load(tmp_path / 'config.py', tmp_path / 'work', tmp_path / 'coco', **options)).train()
    assert list((tmp_path / 'work').rglob('best_coco_bbox_mAP_epoch_1.pth'))
    (scalars,) = (tmp_path / 'work').rglob('scalars.json')
    assert {f'coco/{name}_precision' for name in ODD} < set(json.loads(scalars.read_text().splitlines()[-1]))


def test_a_class_is_not_logged_as_a_mean_for_its_name():
    assert not any(re.search(MEANS, f'coco/{name}_precision') for name in ODD)
    assert re.search(MEANS, 'loss_cls') and re.search(MEANS, 'data_time')


def test_a_segmenter_keeps_the_iou_of_each_class(digits, tmp_path):
    cfg = load('semantic_fpn/pvt_nano_digits', tmp_path, digits / 'ADEChallengeData2016')
    runner = Runner.from_cfg(cfg)
    assert runner.log_processor.mean_pattern.pattern == MEANS
    metrics = runner.val()
    classes = [name for name in metrics if name.endswith('_IoU')]
    assert len(classes) == 11
    assert np.nanmean([metrics[name] for name in classes]) == pytest.approx(metrics['mIoU'], abs=0.01)
    Config.fromfile(next(tmp_path.glob('*.py')))  # what mmengine left there loads, and registers the metric


@pytest.mark.parametrize(
    'said', [dict(), dict(custom_imports=dict(imports='mmdet.models', allow_failed_imports=False))]
)
def test_what_a_config_imports_may_be_nothing_or_one_name(said):
    cfg = Config(dict(val_evaluator=dict(type='IoUMetric'), **said))
    set_classwise(cfg)
    first = [said['custom_imports']['imports']] if said else []
    assert cfg.custom_imports.imports == [*first, 'pvt_mm.engine.class_iou']
    assert cfg.val_evaluator.type == 'PVTIoUMetric' and 'allow_failed_imports' in cfg.custom_imports or not said


def test_what_the_config_says_is_kept():
    cfg = Config(
        dict(
            val_evaluator=[dict(type='mmdet.CocoMetric', classwise=False, metric=['segm', 'bbox'])],
            test_evaluator=dict(type='CocoMetric'),
            log_processor=dict(mean_pattern='loss'),
            default_hooks=dict(checkpoint=dict(save_best='coco/segm_mAP_50')),
        )
    )
    set_classwise(cfg)
    assert cfg.val_evaluator[0].classwise is False and cfg.test_evaluator.classwise is True
    assert cfg.log_processor.mean_pattern == 'loss' and cfg.default_hooks.checkpoint.save_best == 'coco/segm_mAP_50'
    cfg.default_hooks.checkpoint.save_best = 'auto'
    set_classwise(cfg)
    assert cfg.default_hooks.checkpoint.save_best == 'coco/segm_mAP'
