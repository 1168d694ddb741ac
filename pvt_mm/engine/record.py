"""What a run was, kept in its checkpoints, so that one that resumes as another says so."""

import hashlib
import logging
import os
import os.path as osp
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import CheckpointError, SettingError
from ..weights.reading import cached_file, read_meta, resolve
from .resume import latest_checkpoint, naming_another

KEY = 'pvt_mm'  # of the record in a checkpoint's meta
WORLD_SIZE = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')
PACKAGES = ('mmengine', 'mmcv', 'mmdet', 'mmsegmentation')
# How samples are loaded, not which: settings of a loader, and of a run how long it is and when it evaluates.
LOADING = ('dataset', 'batch_size', 'num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor')
LENGTH = ('max_epochs', 'max_iters', 'val_begin', 'val_interval', 'dynamic_intervals')
ABSENT = 'none'


def count_processes(cfg: Config) -> int:
    """How many processes a run has, by the environment of its launcher."""
    return int(os.environ.get(WORLD_SIZE.get(cfg.get('launcher'), ''), 1))


def make_record(cfg: Config, world_size: int) -> dict[str, dict]:
    """What a run's result depends on, as plain data: ``exact``, without which it is another, and ``other``.

    Data is described by what the files hold, not by their paths: annotation files by a hash, folders by the names
    inside. The seed is mmengine's own entry of the meta.

    Args:
        cfg: The run's config.
        world_size: The number of its processes.
    """
    loader, train_cfg = cfg.get('train_dataloader') or {}, cfg.get('train_cfg') or {}
    randomness, scale = cfg.get('randomness') or {}, cfg.get('auto_scale_lr') or {}
    exact = dict(
        batch_size=loader.get('batch_size', 1) * world_size,
        optim_wrapper=cfg.get('optim_wrapper'),
        base_batch_size=scale.get('base_batch_size') if scale.get('enable') else None,
        param_scheduler=_with_ends(cfg.get('param_scheduler'), train_cfg),
        train_cfg={key: value for key, value in train_cfg.items() if key not in LENGTH},
        train_dataloader={key: value for key, value in loader.items() if key not in LOADING},
        dataset=_with_content(loader.get('dataset')),
        model=_without_weights(cfg.get('model')),
        diff_rank_seed=randomness.get('diff_rank_seed'),
        **{key: cfg.get(key) for key in ('bad_data', 'custom_hooks', 'exact_resume', 'sync_bn')},
    )
    other = dict(
        world_size=world_size,
        shard=cfg.get('shard'),
        num_workers=loader.get('num_workers'),
        deterministic=randomness.get('deterministic'),
        train_cfg={key: value for key, value in train_cfg.items() if key in LENGTH},
        pretrained=[_content_of_weights(address) for address in _weights(cfg.get('model'))],
        versions=_versions(),
    )
    return dict(exact=_plain(exact), other=_plain(other))


def check_record(checkpoint: dict, record: dict, seed: int | None, source: str, anyway: bool) -> None:
    """Compares a run with the one that it resumes. What differs is logged, one difference a line.

    Args:
        checkpoint: The earlier run's checkpoint.
        record: This run's :func:`make_record`.
        seed: This run's seed; None where its config has none, and takes the checkpoint's.
        source: What the message calls the checkpoint.
        anyway: Resume whatever differs.

    Raises:
        CheckpointError: The result cannot be that of one uninterrupted run. It lists every reason.
    """
    meta, old = checkpoint['meta'], record_of(checkpoint['meta'])
    faults, notes = [], []
    if seed is not None and meta.get('seed') != seed:
        faults.append(f'seed: {meta.get("seed")} -> {seed}')
    if old is None:
        faults.append('it has no record of its run: mmengine, or an earlier version, saved it')
    else:
        faults += differences(old['exact'], record['exact'])
        notes += differences(old['other'], record['other'])
    if 'optimizer' not in checkpoint:
        faults.append('it has no state of the optimizer')
    if 'param_schedulers' not in checkpoint and record['exact']['param_scheduler'] != ABSENT:
        faults.append('it has no state of the schedulers')
    if faults and not anyway:
        raise CheckpointError(
            f'{source} is of a run that this one does not continue exactly:\n'
            + ''.join(f'  {line}\n' for line in faults + notes)
            + 'set these as they were, or give --resume-anyway (resume_anyway=True in a config)'
        )
    for line in faults + notes:
        print_log(f'resumed with a change: {line}', logger='current', level=logging.WARNING)


def record_of(meta: dict) -> dict | None:
    """The record in a checkpoint's meta; None where there is none."""
    record = meta.get(KEY)
    if not isinstance(record, dict) or not all(isinstance(record.get(part), dict) for part in ('exact', 'other')):
        return None
    counts = record['exact'].get('batch_size'), record['other'].get('world_size')
    return record if all(isinstance(count, int) and count > 0 for count in counts) else None


def differences(old: dict, new: dict) -> list[str]:
    """``key: old -> new`` for each value that differs, in the order of the keys."""
    old, new = dict(_flat(old)), dict(_flat(new))
    lines = []
    for key in sorted({*old, *new}):
        before, after = old.get(key, ABSENT), new.get(key, ABSENT)
        if before != after:
            rounding = ' (equal up to rounding; drop path and the sampling of RoIs draw other numbers)'
            lines.append(f'{key}: {before} -> {after}{rounding if key == "world_size" else ""}')
    return lines


def prepare_resume(cfg: Config) -> None:
    """Finds the checkpoint that a config resumes from, and splits the run's batch among the processes there are now.

    Args:
        cfg: The config. ``resume``, ``load_from`` and ``train_dataloader.batch_size`` are set.

    Raises:
        SettingError: No checkpoint is whole, or the batch cannot be split.
    """
    if cfg.get('resume_anyway'):
        cfg['resume'] = True
    if not cfg.get('resume'):
        return
    if not cfg.get('load_from'):
        cfg['load_from'] = latest_checkpoint(cfg['work_dir'], out_dir(cfg))
    if cfg['load_from']:
        with naming_another(cfg['load_from']):
            record = record_of(read_meta(cfg['load_from']))
        if record is not None and cfg.get('train_dataloader'):
            _split_batch(cfg, record['exact']['batch_size'], record['other']['world_size'])


def out_dir(cfg: Config) -> str | None:
    """The ``out_dir`` of a config's checkpoint hook."""
    return ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('out_dir')


def _split_batch(cfg: Config, batch: int, before: int) -> None:
    processes, loader = count_processes(cfg), cfg['train_dataloader']
    if processes == before or loader.get('batch_size', 1) * before != batch:
        return  # a batch that was changed on purpose is compared as it is
    if batch % processes == 0:
        loader['batch_size'] = batch // processes
        print_log(
            f'{before} processes trained with {batch} images in a step, and there are {processes} now: '
            f'train_dataloader.batch_size={batch // processes}',
            logger='current',
        )
    elif not cfg.get('resume_anyway'):
        fitting = ', '.join(str(count) for count in range(1, batch + 1) if batch % count == 0)
        raise SettingError(
            f'{cfg["load_from"]}: {before} processes trained with {batch} images in a step, which {processes} cannot '
            f'share equally: start {fitting} processes, or give --resume-anyway'
        )


def _with_ends(schedulers: Any, train_cfg: dict) -> Any:
    """The schedulers with the end that mmengine gives them where their values depend on it: that of the run."""
    if isinstance(schedulers, (list, tuple)):
        return [_with_ends(item, train_cfg) for item in schedulers]
    if not isinstance(schedulers, dict):
        return schedulers
    if 'type' not in schedulers:  # of several optimizers
        return {key: _with_ends(value, train_cfg) for key, value in schedulers.items()}
    if 'Step' in str(schedulers['type']) or 'Exponential' in str(schedulers['type']):
        return schedulers
    end = train_cfg.get('max_epochs' if schedulers.get('by_epoch', True) else 'max_iters')
    return dict(end=end) | schedulers


def _with_content(dataset: Any) -> Any:
    """A dataset's settings with what its files and folders hold in place of their paths."""
    if isinstance(dataset, (list, tuple)):
        return [_with_content(item) for item in dataset]
    if not isinstance(dataset, dict):
        return dataset
    settings = {key: _with_content(value) for key, value in dataset.items()}
    root = settings.pop('data_root', None) or ''
    if isinstance(dataset.get('ann_file'), str) and dataset['ann_file']:
        settings['ann_file'] = _content_of_file(osp.join(root, dataset['ann_file']))
    prefixes = dataset.get('data_prefix')
    if isinstance(prefixes, dict):
        settings['data_prefix'] = {
            key: _content_of_folder(osp.join(root, value)) if value else value for key, value in prefixes.items()
        }
    return settings


def _content_of_file(path: str) -> str:
    if not osp.isfile(path):
        return path  # on another machine, or in another system of files
    with open(path, 'rb') as file:
        return f'{osp.getsize(path)} bytes, sha256 {hashlib.file_digest(file, "sha256").hexdigest()[:16]}'


def _content_of_folder(path: str) -> str:
    if not osp.isdir(path):
        return path
    names = sorted(str(file.relative_to(path)) for file in Path(path).rglob('*') if file.is_file())
    return f'{len(names)} files, sha256 of the names {hashlib.sha256(chr(0).join(names).encode()).hexdigest()[:16]}'


def _without_weights(model: Any) -> Any:
    """A model's settings without how it is initialized: a resumed model has the checkpoint's weights."""
    if isinstance(model, (list, tuple)):
        return [_without_weights(item) for item in model]
    if not isinstance(model, dict):
        return model
    return {key: _without_weights(value) for key, value in model.items() if key not in ('init_cfg', 'pretrained')}


def _weights(model: Any) -> Iterator[str]:
    """The pretrained weights that a model's settings name."""
    if isinstance(model, dict):
        yield from (model[key] for key in ('checkpoint', 'pretrained') if isinstance(model.get(key), str))
        model = list(model.values())
    if isinstance(model, (list, tuple)):
        for item in model:
            yield from _weights(item)


def _content_of_weights(address: str) -> str:
    try:
        path = resolve(address)
    except CheckpointError:  # hf://
        return address
    path = cached_file(path) if '://' in path else osp.expanduser(path)
    return f'{osp.basename(path)}, {_content_of_file(path)}' if osp.isfile(path) else address


def _versions() -> dict[str, str]:
    import cv2

    from .. import __version__  # here, as the package imports this module

    versions = dict(pvt_mm=__version__, torch=torch.__version__, numpy=np.__version__, opencv=cv2.__version__)
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _plain(value: Any) -> Any:
    """A value as data that compares equal however it was written: dicts, lists, numbers, strings and booleans."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None:
        return ABSENT
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)  # of a subclass, which a checkpoint must not hold
    return getattr(value, '__qualname__', None) or str(value)


def _flat(value: Any, key: str = '') -> Iterator[tuple[str, Any]]:
    """The values inside dicts and lists by their keys with dots; a list of numbers or strings is a value."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        items = enumerate(value)
    else:
        yield key, value
        return
    for name, item in items:
        yield from _flat(item, f'{key}.{name}' if key else str(name))
