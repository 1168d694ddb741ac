"""Going on from the checkpoint of an earlier run."""

import contextlib
import logging
import os
import os.path as osp
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict

from ..errors import CheckpointError, SettingError
from ..weights.reading import read_checkpoint, read_meta

MISSING = 'is missing'
# What optimizers keep in the shape of a parameter.
MOMENTS = ('momentum_buffer', 'exp_avg', 'exp_avg_sq', 'max_exp_avg_sq')


def latest_checkpoint(work_dir: str, out_dir: str | None = None) -> str | None:
    """The newest whole checkpoint of a run; None if none was saved.

    It is the one that the file ``last_checkpoint`` of the work dir names. Where that file or its checkpoint is missing
    or damaged, or a whole ``epoch_*.pth`` or ``iter_*.pth`` was saved later, a line says so. The time of saving is the
    one inside the file, so that copies, and checkpoints of another run in the same folder, are told apart.

    Args:
        work_dir: The run's folder.
        out_dir: The ``out_dir`` of the checkpoint hook, if it has one.

    Raises:
        SettingError: There are files, and none is whole.
    """
    pointer = Path(work_dir, 'last_checkpoint')
    named, fault = _named(pointer)
    if named and '://' in named:
        return named
    files = checkpoint_files(work_dir)
    if out_dir:
        files += checkpoint_files(osp.join(out_dir, osp.basename(osp.abspath(work_dir))))
    if named and not any(osp.samefile(named, file) for file in files):
        files.append(named)
    if not files:
        if fault == MISSING:
            return None
        raise SettingError(f'{pointer} {fault}, and {work_dir} holds no other: name a checkpoint, --resume FILE')
    newest, faults = newest_whole(files)
    if newest is None:
        raise SettingError(
            f'{work_dir} holds no whole checkpoint: {"; ".join(faults)}; name one, --resume FILE, or give another '
            '--work-dir to start anew'
        )
    if fault:
        faults.insert(0, f'{pointer} {fault}')
    elif not faults and not osp.samefile(named, newest):
        faults = [f'{pointer} names {named}, which is older']
    if faults and not int(os.environ.get('LOCAL_RANK', 0)):
        for line in (*faults, f'the newest whole checkpoint is {newest}'):
            print_log(line, logger='current', level=logging.WARNING)
    return newest


def _named(pointer: Path) -> tuple[str | None, str]:
    """The checkpoint that ``last_checkpoint`` names, or what is wrong with the file."""
    try:
        name = pointer.read_text().strip()
    except FileNotFoundError:
        return None, MISSING
    except (OSError, UnicodeDecodeError) as error:
        return None, f'cannot be read ({error})'
    if not name:
        return None, 'is empty'
    if '://' not in name and not osp.exists(name):  # Path.exists raises on a name that is too long
        return None, f'names {name.splitlines()[0][:200]}, which does not exist'
    return name, ''


def checkpoint_files(folder: str | Path) -> list[str]:
    """The checkpoints that a folder holds by their names, the best ones not among them."""
    return [str(path) for pattern in ('epoch_*.pth', 'iter_*.pth') for path in Path(folder).glob(pattern)]


def newest_whole(files: list[str]) -> tuple[str | None, list[str]]:
    """The whole file that was saved last, and what is wrong with newer and unreadable ones."""
    saved, faults = {}, []
    for file in files:
        try:
            meta = read_meta(file)
        except CheckpointError as error:
            faults.append(str(error))
        else:
            iteration = meta.get('iter')
            saved[file] = (str(meta.get('time', '')), iteration if isinstance(iteration, int) else 0)
    for file in sorted(saved, key=saved.get, reverse=True):
        try:
            read_checkpoint(file)
        except CheckpointError as error:
            faults.append(str(error))
        else:
            return file, faults
    return None, faults


@contextlib.contextmanager
def naming_another(checkpoint: str) -> Iterator[None]:
    """Adds to the error of a checkpoint that cannot be read the name of one that can, if there is one beside it."""
    try:
        yield
    except CheckpointError as error:
        others = [file for file in checkpoint_files(Path(checkpoint).parent) if Path(file) != Path(checkpoint)]
        newest, _ = newest_whole(others)
        if newest is None:
            raise
        raise CheckpointError(f'{error}; the newest whole checkpoint beside it: --resume {newest}') from error


def resumes(cfg: Config) -> bool:
    """Whether a run goes on from a checkpoint: it is to resume, and there is one."""
    return bool(cfg.get('resume') and (cfg.get('load_from') or latest_checkpoint(cfg.work_dir)))


def check_resumable(checkpoint: dict[str, Any], source: str) -> None:
    """Checks that a checkpoint holds what mmengine saves of a training run: where it was, its log and its optimizer.

    Raises:
        CheckpointError: A part is missing, the optimizer and the schedulers apart, or of another type.
    """
    meta, hub = checkpoint.get('meta', {}), checkpoint.get('message_hub')
    parts = {f'meta.{key}': isinstance(meta.get(key), int) for key in ('epoch', 'iter')}
    parts['message_hub'] = isinstance(hub, dict) and all(
        isinstance(hub.get(key), dict) and all(isinstance(name, str) for name in hub[key])
        for key in ('log_scalars', 'runtime_info', 'resumed_keys')
    )
    parts['optimizer'] = isinstance(checkpoint.get('optimizer', {}), dict)
    parts['param_schedulers'] = isinstance(checkpoint.get('param_schedulers', []), list | dict)  # a run can have none
    lacking = [part for part, is_there in parts.items() if not is_there]
    if lacking:
        raise CheckpointError(
            f'{source} is no checkpoint to resume from, it lacks {", ".join(lacking)}: to start from its weights, '
            'set load_from in place of --resume'
        )


def check_moments(optim_wrapper: OptimWrapper | OptimWrapperDict) -> None:
    """Raises ValueError where an optimizer's state has not the shape of its parameter, which torch finds in a step."""
    wrappers = optim_wrapper.values() if isinstance(optim_wrapper, OptimWrapperDict) else [optim_wrapper]
    for wrapper in wrappers:
        for parameter, state in wrapper.optimizer.state.items():
            for name in MOMENTS:
                value = (state or {}).get(name)  # None: with ZeRO another process has it
                if isinstance(value, torch.Tensor) and value.shape != parameter.shape:
                    raise ValueError(f'{name} is {tuple(value.shape)} for a parameter of {tuple(parameter.shape)}')


def drop_foreign_paths(runtime_info: dict[str, Any], work_dir: str) -> None:
    """Removes from the state of a resumed run what leads mmengine's CheckpointHook out of the work dir.

    The hook removes the file or folder ``best_ckpt`` when there is a better one, and makes the names of files to remove
    from ``keep_ckpt_ids`` and ``extra_ckpt_ids``.

    Args:
        runtime_info: The message hub's, as a checkpoint filled it. It is changed.
        work_dir: The folder of the run.
    """
    for key, value in list(runtime_info.items()):
        if str(key).startswith('best_ckpt'):
            is_ours = isinstance(value, str) and _is_best(Path(value), Path(work_dir))
        elif key in ('keep_ckpt_ids', 'extra_ckpt_ids'):
            is_ours = isinstance(value, list) and all(isinstance(step, int) for step in value)
        else:
            continue
        if not is_ours:
            del runtime_info[key]
            print_log(
                f'{key} of the checkpoint is {value!r}, not in {work_dir}: it is left alone',
                logger='current',
                level=logging.WARNING,
            )


def _is_best(path: Path, work_dir: Path) -> bool:
    """Whether the path is such as the hook gives the best checkpoint of this work dir."""
    return path.absolute().parent == work_dir.absolute() and path.name.startswith('best_')
