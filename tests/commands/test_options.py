"""Keys of --cfg-options: slips are named, what some part takes is accepted."""

import pytest
from mmengine.config import Config

from pvt_mm.commands.launch import find_config
from pvt_mm.commands.options import check_options
from pvt_mm.errors import SettingError


@pytest.mark.parametrize(
    'option, nearest',
    [
        ('load_form', 'load_from'),
        ('optim_wraper.optimizer.lr', 'optim_wrapper'),
        ('randomnes.seed', 'randomness'),  # the runner's, not in the config
        ('model.backbne.frozen_stages', 'model.backbone'),
        ('model.backbone.frozen_stage', 'model.backbone.frozen_stages'),  # an argument that the config does not set
        ('model.bbox_head.num_class', 'model.bbox_head.num_classes'),
        ('model.bbox_head.feat_chanels', 'model.bbox_head.feat_channels'),
        ('train_dataloader.batchsize', 'train_dataloader.batch_size'),
        ('train_dataloader.dataset.pipeline.0.tpe', 'train_dataloader.dataset.pipeline.0.type'),
        ('train_cfg.max_epoch', 'train_cfg.max_epochs'),
        ('default_hooks.checkpoint.intervall', 'default_hooks.checkpoint.interval'),
    ],
)
def test_a_slip_is_named_with_the_nearest_key(option, nearest):
    cfg = Config.fromfile(find_config('retinanet/pvt_nano_digits'))
    with pytest.raises(SettingError, match=rf'^--cfg-options {option}: the config has no .*; is it {nearest}\?$'):
        check_options(cfg, {option: 1, 'work_dir': 'here'})


@pytest.mark.parametrize(
    'config',
    ['retinanet/pvt_small_1x', 'mask_rcnn/pvt_nano_digits', 'detr/pvt_small_50e', 'semantic_fpn/pvt_small_80k'],
)
def test_what_the_config_has_and_what_a_part_takes_is_accepted(config):
    check_options(
        Config.fromfile(find_config(config)),
        dict.fromkeys(
            [
                'model.backbone.init_cfg',
                'model.backbone.init_cfg.type',
                'model.backbone.init_cfg.checkpoint',
                'model.backbone.with_cp',
                'model.backbone.img_size',
                'model.test_cfg.score_thr',
                'model.init_cfg.type',
                'optim_wrapper.dtype',
                'optim_wrapper.loss_scale',
                'optim_wrapper.accumulative_counts',
                'optim_wrapper.clip_grad.max_norm',
                'optim_wrapper.paramwise_cfg.norm_decay_mult',
                'optim_wrapper.optimizer.betas',
                'optim_wrapper.optimizer.fused',
                'randomness.seed',
                'randomness.deterministic',
                'model_wrapper_cfg.find_unused_parameters',
                'find_unused_parameters',
                'auto_scale_lr.base_batch_size',
                'tta_pipeline',
                'custom_imports.imports',
                'custom_hooks',
                'work_dir',
                'my_own_setting',
                'env_cfg.cudnn_benchmark',
                'train_dataloader.dataset.indices',
                'train_dataloader.num_workers',
                'train_dataloader.persistent_workers',
                'train_dataloader.pin_memory',
                'train_dataloader.dataset.metainfo.classes',
                'train_dataloader.dataset.data_prefix.img',
                'train_cfg.val_begin',
                'val_evaluator.classwise',
                'default_hooks.logger.log_metric_by_epoch',
                'default_hooks.checkpoint.save_best',
                'default_hooks.checkpoint.max_keep_ckpts',
                'visualizer.vis_backends.0.save_dir',
                'param_scheduler.0.begin',
            ]
        ),
    )


def test_the_arguments_of_another_type_are_left_to_it():
    cfg = Config.fromfile(find_config('retinanet/pvt_small_1x'))
    check_options(cfg, {'model.backbone.type': 'Other', 'model.backbone.archs': 1})
