"""Sharded checkpoints: each process writes its own share beside the checkpoint."""

import time
from pathlib import Path

import torch
from mmengine.dist import all_gather_object, broadcast, get_rank, get_world_size
from torch import Tensor

from ..errors import SettingError, TrainingError
from ..weights.reading import SHARES, share_folder
from .saving import whole_file
from .step import check_savable


def write_shares(path: Path, shares: dict[tuple, Tensor]) -> dict[str, int]:
    """Writes this process's shares of a checkpoint; all processes call it, before the first one writes the rest.

    :func:`pvt_mm.weights.reading.read_checkpoint` joins them.

    Args:
        path: The checkpoint's.
        shares: Tensors by the keys that lead to each in the checkpoint (:func:`.sharding.gathered`).

    Returns:
        What the checkpoint's ``meta`` must hold under ``SHARES``.

    Raises:
        SettingError: A disk is full, or the folder cannot be written to.
        TrainingError: A value is not finite.
    """
    saved = torch.tensor(time.time_ns())
    broadcast(saved)  # tells these files from those of an earlier saving
    stamp = dict(number=get_world_size(), saved=saved.item())
    file, failure = share_folder(path) / f'{get_rank()}.pth', None
    try:
        check_savable({'.'.join(map(str, keys)): value for keys, value in shares.items()})
        with whole_file(file) as part:
            part.parent.mkdir(parents=True, exist_ok=True)
            torch.save({SHARES: stamp, 'tensors': shares}, part)
    except (SettingError, TrainingError) as error:
        failure = error
    if failures := [failure for failure in all_gather_object(failure) if failure]:
        raise failures[0]  # in all processes: the others would wait for this one
    return stamp
