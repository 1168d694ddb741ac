"""Tests a checkpoint with the metrics of its config: ``pvt-mm test CONFIG CHECKPOINT``."""

import argparse
import os
from copy import deepcopy

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.registry import RUNNERS

from ..data.agreement import check_agreement
from ..engine import Runner
from ..errors import SettingError
from .checks import check_testing
from .classwise import list_metrics
from .launch import (
    CONFIG_HELP,
    add_arguments,
    check_checkpoint,
    check_data,
    check_ops,
    dicts,
    find_datasets,
    load_config,
    one_line_errors,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument('checkpoint', help='checkpoint file or address')
    parser.add_argument(
        '--out',
        help="keep the predictions: for detectors a .json file in COCO's results format or a .pkl file, for segmenters "
        'a folder of label maps',
    )
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument(
        '--show-dir',
        help='keep pictures of the predictions; for detectors, a relative folder lies under work_dir/timestamp',
    )
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show shows each')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    add_arguments(parser)
    return parser.parse_args()


def apply_flags(cfg: Config, args: argparse.Namespace) -> None:
    """Puts the flags of testing into the config; SettingError where the library of the config lacks what they need."""
    cfg.load_from = args.checkpoint
    cfg.resume = False
    scope = cfg.get('default_scope')
    segmenter = scope == 'mmseg'
    if args.show or args.show_dir:
        hook = cfg.default_hooks.get('visualization')
        if hook is None:
            raise SettingError(f'--show and --show-dir need default_hooks.visualization, which {args.config} lacks')
        if scope == 'mmpretrain':
            hook.update(enable=True, interval=1, show=args.show, out_dir=args.show_dir)
        else:
            hook.update(draw=True, show=args.show, wait_time=args.wait_time)
            if not segmenter:
                hook.test_out_dir = args.show_dir
        if segmenter:
            hook.interval = 1
            if args.show_dir:
                cfg.visualizer.save_dir = args.show_dir
    if args.out:
        metrics = list_metrics(cfg.test_evaluator)
        if segmenter:
            if args.out.endswith(('.json', '.pkl', '.pickle')):
                raise SettingError(f'--out {args.out}: segmenters write label maps, give a folder')
            metrics[0].output_dir = args.out
        elif args.out.endswith('.json'):
            coco = [metric for metric in metrics if 'CocoMetric' in str(metric.type)]
            if not coco:
                raise SettingError(
                    f'--out {args.out}: only CocoMetric writes JSON, and {args.config} has none; give a .pkl'
                )
            coco[0].outfile_prefix = args.out.removesuffix('.json')
        elif args.out.endswith(('.pkl', '.pickle')):
            dump = 'DumpResults' if scope == 'mmpretrain' else 'mmdet.DumpDetResults'
            cfg.test_evaluator = [*metrics, dict(type=dump, out_file_path=args.out)]
        else:
            raise SettingError(f'--out {args.out} must end in .json, .pkl or .pickle')
    if args.tta:
        set_tta(cfg, args.config)


def set_tta(cfg: Config, config: str) -> None:
    """Wraps the model for test-time augmentation: as the config says, or, for detectors, mmdet's flip."""
    if any(settings.get('mask_head') for settings in dicts(cfg.model)):
        raise SettingError('--tta: mmdet does not merge instance masks; leave it out')
    datasets = find_datasets(cfg, 'test_dataloader')
    if cfg.get('default_scope') == 'mmdet':
        cfg.setdefault(
            'tta_model',
            dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)),
        )
        if 'tta_pipeline' not in cfg:
            pack = dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction'),
            )
            flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
            cfg.tta_pipeline = deepcopy(datasets[0].pipeline)
            cfg.tta_pipeline[-1] = dict(type='TestTimeAug', transforms=[flips, [pack]])
    for key in ('tta_model', 'tta_pipeline'):
        if key not in cfg:
            raise SettingError(f'--tta needs {key}, which {config} does not set')
    for dataset in datasets:
        dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(cfg.tta_model, module=cfg.model)


@one_line_errors
def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    apply_flags(cfg, args)
    check_ops()
    check_data(cfg, 'test_dataloader', 'test_evaluator')
    check_agreement(cfg, 'test_dataloader')
    check_testing(cfg)
    check_checkpoint(args.checkpoint)
    if args.check:
        return
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    runner.test()
    if args.out and args.out.endswith('.json') and is_main_process():
        os.replace(f'{args.out.removesuffix(".json")}.bbox.json', args.out)  # CocoMetric's name for it
