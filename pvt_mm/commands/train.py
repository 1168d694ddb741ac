"""Trains a detector, segmenter or any model of a config: ``pvt-mm train CONFIG``."""

import argparse
import os
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import RUNNERS

from ..data.beside import agreement_checked
from ..engine import Runner, latest_checkpoint, resumes
from ..engine.amp import keep_ops_in_float32
from ..engine.record import out_dir, prepare_resume
from ..engine.saving import period
from ..engine.sharding import SHARDS, check_shard
from ..errors import SettingError
from .checks import check_training
from .dashboards import BACKENDS, add_backend
from .launch import (
    CONFIG_HELP,
    add_arguments,
    check_checkpoint,
    check_data,
    check_ops,
    check_pretrained,
    load_config,
    one_line_errors,
)

# How often a launcher has started the run again.
RESTARTS = dict(pytorch='TORCHELASTIC_RESTART_COUNT', slurm='SLURM_RESTART_COUNT')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument('--amp', action='store_true', help='train in mixed precision (CUDA)')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size of this run'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from this checkpoint, or, without one, from the latest of the work dir',
    )
    parser.add_argument(
        '--resume-anyway',
        action='store_true',
        help='as --resume, also where the run is not the one that saved the checkpoint: what differs is listed',
    )
    parser.add_argument(
        '--save-every',
        type=save_every,
        metavar='TIME',
        help='save a checkpoint inside epochs too, as 90s, 15min, 2h or a number of iterations; the newest 2 are kept',
    )
    parser.add_argument(
        '--shard',
        choices=SHARDS,
        help="share the model and the optimizer's states among the processes (fsdp), or the states alone (zero)",
    )
    parser.add_argument('--vis', choices=BACKENDS, help='log to this dashboard too')
    add_arguments(parser)
    return parser.parse_args()


def save_every(text: str) -> str:
    try:
        period(text)
    except SettingError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def apply_flags(cfg: Config, args: argparse.Namespace) -> None:
    """Puts the flags of training into the config; SettingError where the config or the machine lacks what they need."""
    if args.amp:
        if not torch.cuda.is_available():
            raise SettingError('--amp needs CUDA, and there is none here: leave it out to train in float32')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    if 'AmpOptimWrapper' in str(cfg.get('optim_wrapper', {}).get('type')):
        keep_ops_in_float32()
    if args.auto_scale_lr:
        if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
            raise SettingError(f'--auto-scale-lr needs auto_scale_lr.base_batch_size, which {args.config} does not set')
        cfg.auto_scale_lr.enable = True
    if args.shard:
        cfg.shard = args.shard
    check_shard(cfg)
    if args.vis:
        add_backend(cfg, args.vis)
    if args.save_every is not None:
        cfg.merge_from_dict(
            dict(default_hooks=dict(checkpoint=dict(type='PVTCheckpointHook', save_every=args.save_every)))
        )
    if args.resume_anyway:
        cfg.resume_anyway = True
        args.resume = args.resume or 'auto'
    apply_restarts(cfg, args)
    if args.resume is not None:
        auto = args.resume == 'auto'
        checkpoint = latest_checkpoint(cfg.work_dir, out_dir(cfg)) if auto else args.resume
        cfg.resume = checkpoint is not None
        if checkpoint is not None:
            cfg.load_from = checkpoint
        elif not int(os.environ.get('LOCAL_RANK', 0)):
            print_log(f'--resume: {cfg.work_dir} holds no checkpoint, the run starts anew')
    prepare_resume(cfg)


def apply_restarts(cfg: Config, args: argparse.Namespace) -> None:
    """Makes a run that its launcher has started again resume from the latest checkpoint.

    Raises:
        SettingError: The run may be started again (``MAX_RESTARTS``), and its work dir holds a checkpoint of another.
    """
    restarted = int(os.environ.get(RESTARTS.get(args.launcher, ''), 0))
    if not restarted and not int(os.environ.get('MAX_RESTARTS') or 0):
        return
    latest = latest_checkpoint(cfg.work_dir, out_dir(cfg))
    if restarted and latest:
        args.resume = 'auto'
    elif latest and args.resume != 'auto' and Path(args.resume or '').absolute() != Path(latest).absolute():
        raise SettingError(
            f'after a restart this run would go on from {latest}, which is of an earlier one: give --resume to go on '
            'from there now, or another --work-dir'
        )


@one_line_errors
def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    cfg.setdefault('exact_resume', True)
    apply_flags(cfg, args)
    check_ops()
    check_data(cfg, 'train_dataloader', 'val_dataloader', 'val_evaluator')
    findings = []  # for the report

    def log(line: str) -> None:
        print(line)
        findings.append(line)

    with agreement_checked(cfg, 'train_dataloader', 'val_dataloader', log=log) as agreed:
        check_training(cfg, padding=args.check, log=log)
        check_checkpoint(cfg.get('load_from'))
        if not resumes(cfg):
            check_pretrained(cfg.model)
        if args.check:
            return
        runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
        if agreed:
            runner.register_hook(agreed)
        runner.message_hub.update_info('findings', findings, resumed=False)
        runner.train()
