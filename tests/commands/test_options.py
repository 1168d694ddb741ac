"""Keys of --cfg-options: slips are named, what some part takes is accepted."""

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

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
                'model.train_cfg.of_a_dict_without_type',
                'optim_wrapper.dtype',
                'optim_wrapper.constructor',
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
                'env_cfg.cudnn_benchmark',
                'train_dataloader.dataset.indices',
                'train_dataloader.num_workers',
                'train_dataloader.persistent_workers',
                'train_dataloader.pin_memory',
                'train_dataloader.prefetch_factor',
                'train_dataloader.num_batch_per_epoch',
                'train_dataloader.dataset.metainfo.classes',
                'train_dataloader.dataset.data_prefix.img',
                'train_cfg.val_begin',
                'val_evaluator.collect_device',
                'default_hooks.logger.log_metric_by_epoch',
                'default_hooks.checkpoint.save_best',
                'default_hooks.checkpoint.max_keep_ckpts',
                'visualizer.vis_backends.0.save_dir',
                'param_scheduler.0.begin',
                'param_scheduler.0.convert_to_iter_based',
                'default_hooks.checkpoint.priority',
            ]
        ),
    )


@pytest.mark.parametrize(
    'option, missing, there',
    [
        ('foo.bar', 'foo', 'it has .*model'),
        ('my_own_setting', 'my_own_setting', 'it has .*optim_wrapper'),
        ('model.backbone.nonsense', 'model.backbone.nonsense', 'model.backbone has type, arch, .*, with_cp'),
        ('model.bbox_head.nonsense', 'model.bbox_head.nonsense', 'model.bbox_head has .*num_classes'),  # **kwargs
        ('optim_wrapper.optimizer.rho', 'optim_wrapper.optimizer.rho', 'optim_wrapper.optimizer has .*betas'),
        ('train_dataloader.shards', 'train_dataloader.shards', 'train_dataloader has .*batch_size'),
        (
            'train_dataloader.dataset.years',
            'train_dataloader.dataset.years',
            'train_dataloader.dataset has type, data_root',
        ),
    ],
)
def test_a_key_that_is_near_nothing_is_refused_with_those_that_are_there(option, missing, there):
    cfg = Config.fromfile(find_config('retinanet/pvt_nano_digits'))
    with pytest.raises(
        SettingError, match=rf'^--cfg-options {option}: the config has no {missing}, and nothing takes it; {there}'
    ) as error:
        check_options(cfg, {option: 1})
    assert '\n' not in str(error.value)


def test_a_part_whose_keyword_arguments_go_elsewhere_takes_any():
    @MODELS.register_module()
    class TakesAny:
        def __init__(self, width, **kwargs):
            self.settings = kwargs

    try:
        cfg = Config(dict(model=dict(type='TakesAny', width=1)))
        check_options(cfg, {'model.anything': 1})
        with pytest.raises(SettingError, match='is it model.width'):
            check_options(cfg, {'model.widht': 1})
    finally:
        del MODELS.module_dict['TakesAny']


def test_the_arguments_of_another_type_are_left_to_it():
    cfg = Config.fromfile(find_config('retinanet/pvt_small_1x'))
    check_options(cfg, {'model.backbone.type': 'Other', 'model.backbone.archs': 1})
