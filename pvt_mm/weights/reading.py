"""Reading checkpoints as data and saying what they held.

Importing this module closes the ways by which a checkpoint could run code (``weights_only=True`` everywhere) and
allows, by name, what mmengine's own checkpoints hold beyond tensors, so that they load and resume on torch >= 2.6.
"""

import os.path as osp
import pickle
import re
from typing import Any

import mmengine.runner.checkpoint as mmengine_checkpoint
import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from ..errors import CheckpointError


def _history_buffer_method(owner: Any, name: str) -> Any:
    """Stands in for ``builtins.getattr``: a pickled HistoryBuffer names its own statistics through it."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed in a checkpoint')


def _load_url(url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True) -> dict:
    """``torch.hub.load_state_dict_from_url`` with ``weights_only=True`` and one plain error offline."""
    try:
        return torch.hub.load_state_dict_from_url(
            url, model_dir, map_location=map_location, progress=progress, weights_only=True
        )
    except OSError as error:  # urllib's errors among them
        raise CheckpointError(
            f'{url} cannot be fetched ({error}): download it on a machine with a network '
            f'and put it at {cached_file(url, model_dir)}'
        ) from error


def cached_file(url: str, model_dir: str | None = None) -> str:
    """Where torch.hub keeps the file of ``url``."""
    return osp.join(model_dir or osp.join(torch.hub.get_dir(), 'checkpoints'), osp.basename(url))


def _register_safe_loading() -> None:
    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (_history_buffer_method, 'builtins.getattr'),
            np.ndarray,
            np.dtype,
            np.dtypes.Float64DType,
            np.dtypes.Int64DType,
            *(
                (function, f'numpy.{core}.multiarray.{name}')  # numpy 2's and numpy 1's place of it
                for function, name in [(reconstruct, '_reconstruct'), (scalar, 'scalar')]
                for core in ('_core', 'core')
            ),
        ]
    )
    # Every URL scheme of mmengine's (http, torchvision, open-mmlab) comes through this function.
    mmengine_checkpoint.load_url = _load_url


_register_safe_loading()

# What torch's unpickler and the stand-in above say of a checkpoint that asks for code.
_REFUSED = re.compile(r'unsupported (global|class)|unrecognized|not allowed in a checkpoint|Can only ', re.IGNORECASE)


def read_checkpoint(source: str, map_location: Any = 'cpu') -> dict:
    """Reads a checkpoint from a path or any address that mmengine knows.

    Raises:
        CheckpointError: It is missing, cannot be fetched or read, or holds more than data.
    """
    try:
        checkpoint = CheckpointLoader.load_checkpoint(source, map_location)
    except FileNotFoundError as error:
        raise CheckpointError(f'checkpoint {source} does not exist') from error
    except (ImportError, KeyError) as error:  # torchvision:// without torchvision, an unknown name
        raise CheckpointError(
            f'checkpoint {source} cannot be resolved ({type(error).__name__}: {error}): give a file or an https address'
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = next((line.strip() for line in str(error).split('\n') if _REFUSED.search(line)), None)
        if reason:
            raise CheckpointError(f'checkpoint {source} holds more than data and was not loaded: {reason}') from error
        reason = (str(error) or 'it is empty').splitlines()[0]
        remedy = f'; remove {cached_file(source)} to fetch it again' if '://' in source else ''
        raise CheckpointError(
            f'checkpoint {source} cannot be read, it is damaged or no checkpoint: {reason}{remedy}'
        ) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f'checkpoint {source} holds a {type(checkpoint).__name__}, not a state dict')
    return checkpoint
