"""Going on from the checkpoint of an earlier run."""

import logging
import os.path as osp
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import CheckpointError, SettingError


def latest_checkpoint(work_dir: str) -> str | None:
    """The checkpoint that the file ``last_checkpoint`` of a work dir names; None if no checkpoint was saved there.

    Raises:
        SettingError: The file is empty or cannot be read, or its checkpoint does not exist.
    """
    pointer = Path(work_dir) / 'last_checkpoint'
    try:
        checkpoint = pointer.read_text().strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f'{pointer} cannot be read ({error}): name a checkpoint, --resume FILE') from error
    if not checkpoint:
        raise SettingError(f'{pointer} is empty: name a checkpoint, --resume FILE')
    if '://' not in checkpoint and not osp.exists(checkpoint):  # Path.exists raises on a name that is too long
        here = osp.join(work_dir, osp.basename(checkpoint))
        raise SettingError(
            f'{pointer} names {checkpoint.splitlines()[0][:200]}, which does not exist: '
            + (f'if the folder was moved, --resume {here}' if osp.exists(here) else 'name a checkpoint, --resume FILE')
        )
    return checkpoint


def resumes(cfg: Config) -> bool:
    """Whether a run goes on from a checkpoint: it is to resume, and there is one."""
    return bool(cfg.get('resume') and (cfg.get('load_from') or latest_checkpoint(cfg.work_dir)))


def check_resumable(checkpoint: dict[str, Any], source: str) -> None:
    """Checks that a checkpoint holds what mmengine saves of a training run: where it was, its log and its optimizer.

    Raises:
        CheckpointError: A part is missing or of another type.
    """
    meta, hub = checkpoint.get('meta', {}), checkpoint.get('message_hub')
    parts = {f'meta.{key}': isinstance(meta.get(key), int) for key in ('epoch', 'iter')}
    parts['message_hub'] = isinstance(hub, dict) and all(
        isinstance(hub.get(key), dict) and all(isinstance(name, str) for name in hub[key])
        for key in ('log_scalars', 'runtime_info', 'resumed_keys')
    )
    parts['optimizer'] = isinstance(checkpoint.get('optimizer'), dict)
    parts['param_schedulers'] = isinstance(checkpoint.get('param_schedulers', []), list | dict)  # a run can have none
    lacking = [part for part, is_there in parts.items() if not is_there]
    if lacking:
        raise CheckpointError(
            f'{source} is no checkpoint to resume from, it lacks {", ".join(lacking)}: to start from its weights, '
            'set load_from in place of --resume'
        )


def drop_foreign_paths(runtime_info: dict[str, Any], work_dir: str) -> None:
    """Removes from the state of a resumed run what leads mmengine's CheckpointHook out of the work dir.

    The hook removes the file or folder ``best_ckpt`` when there is a better one, and makes the names of files to remove
    from ``keep_ckpt_ids``.

    Args:
        runtime_info: The message hub's, as a checkpoint filled it. It is changed.
        work_dir: The folder of the run.
    """
    for key, value in list(runtime_info.items()):
        if str(key).startswith('best_ckpt'):
            is_ours = isinstance(value, str) and _is_best(Path(value), Path(work_dir))
        elif key == 'keep_ckpt_ids':
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
