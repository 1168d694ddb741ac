"""Reading checkpoint files as data: nothing in a file is ever run.

Importing this module adds to what ``torch.load(weights_only=True)`` accepts: the inert types in mmengine's checkpoints,
by name, so that they load and resume on torch >= 2.6. It registers ``pvt://`` with mmengine. It replaces nothing.
"""

import http.client
import os
import os.path as osp
import pickle
import re
import warnings
import zipfile
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mmengine.runner.checkpoint as mmengine_checkpoint
import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader

from ..errors import CheckpointError
from .published import published_address

SHARES = 'shares'  # of a sharded checkpoint's meta: how many processes wrote a share, and when
HUGGING_FACE_FILES = ('model.safetensors', 'pytorch_model.bin')
PLAIN_DTYPES = {
    torch.bool,
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
}


class _HistoryBuffer(HistoryBuffer):
    """Stands in for mmengine's class while a checkpoint is read.

    A pickled HistoryBuffer names its statistics, and mmengine puts those into the class, where they hold for every log
    of the process. A file must not choose them: here they stay mmengine's own.
    """

    def __setstate__(self, state: dict) -> None:
        state.pop('statistics_methods', None)
        super().__setstate__(state)
        self.__class__ = HistoryBuffer  # saved again, it has mmengine's name


def _history_buffer_method(owner: Any, name: str) -> Callable:
    """Stands in for ``builtins.getattr``, by which a pickled HistoryBuffer names its statistics."""
    if (owner is HistoryBuffer or owner is _HistoryBuffer) and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError('unsupported GLOBAL builtins.getattr')


def _allow_inert_types() -> None:
    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    torch.serialization.add_safe_globals(
        [
            (_HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
            (_history_buffer_method, 'builtins.getattr'),
            Namespace,
            np.ndarray,
            np.dtype,
            *{type(np.dtype(code)) for code in '?' + np.typecodes['AllInteger'] + np.typecodes['AllFloat']},
            *(
                (function, f'numpy.{core}.multiarray.{name}')  # numpy 2's and numpy 1's place of it
                for function, name in [(reconstruct, '_reconstruct'), (scalar, 'scalar')]
                for core in ('_core', 'core')
            ),
        ]
    )


_allow_inert_types()


def force_weights_only() -> None:
    """Makes every ``torch.load`` of this process, and of those that it starts, read data only, whoever calls it.

    It is for a process of our own, a command: there mmengine's loading of every model is held to it too, also through
    torch.hub, which asks for ``weights_only=False``.
    """
    if os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None):
        print_log('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is ignored: checkpoints are read as data only.', level=30)
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'


def read_checkpoint(source: str, map_location: str | torch.device = 'cpu') -> dict:
    """Reads a checkpoint as data, whatever the environment says of ``weights_only``.

    Args:
        source: A file (``.safetensors``, or any name if ``torch.save`` wrote it); a folder with Hugging Face's
            ``model.safetensors`` or ``pytorch_model.bin``; ``http(s)://...``; ``pvt://small`` (:mod:`.published`);
            ``hf://OWNER/NAME`` or ``hf://OWNER/NAME/FILE``; ``torchvision://``, ``open-mmlab://`` or ``mmcls://`` and a
            name that mmengine knows.
        map_location: The device of the tensors.

    Raises:
        CheckpointError: It is missing, cannot be fetched or read, or holds more than data; or it is sharded, and a
            process's share is missing or of another checkpoint.
    """
    path = _file_of(source)
    try:
        with warnings.catch_warnings(action='ignore'):  # torch's, about what is no checkpoint: the error says it
            checkpoint = _load(path, map_location)
    except ImportError as error:
        raise CheckpointError(f'checkpoint {source} needs safetensors: pip install safetensors') from error
    except Exception as error:  # there is no exception that a damaged file cannot provoke
        remedy = f'; remove {osp.realpath(path)} to fetch it again' if '://' in source else ''
        raise CheckpointError(f'checkpoint {source} {_fault(path, error)}{remedy}') from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f'checkpoint {source} holds a {type(checkpoint).__name__}, not a state dict')
    if not isinstance(checkpoint.get('meta', {}), dict):
        raise CheckpointError(
            f'checkpoint {source}: its meta is a {type(checkpoint["meta"]).__name__}, not a dict as mmengine saves it'
        )
    if SHARES in checkpoint.get('meta', {}):
        _join_shares(checkpoint, path, map_location)
    if source.startswith('mmcls://'):
        checkpoint = mmengine_checkpoint._process_mmcls_checkpoint(checkpoint)  # the backbone's part of a classifier
    return checkpoint


def share_folder(path: str | Path) -> Path:
    """The folder beside a sharded checkpoint with a file for each process, ``0.pth`` and so on."""
    return Path(path).with_suffix('.shares')


def _join_shares(checkpoint: dict, path: str, map_location: str | torch.device) -> None:
    """Fills a sharded checkpoint with what each process wrote (:func:`pvt_mm.engine.shares.write_shares`).

    Raises:
        CheckpointError: A file is missing, damaged, or of another saving.
    """
    stamp = checkpoint['meta'].pop(SHARES)
    tensors = defaultdict(list)
    try:
        for rank in range(stamp['number']):
            file = share_folder(path) / f'{rank}.pth'
            if not file.exists():
                raise CheckpointError(f'checkpoint {path} is sharded and {file} is missing: copy the folder with it')
            share = read_checkpoint(str(file), map_location)
            if share[SHARES] != stamp:
                raise CheckpointError(f'checkpoint {path} is sharded and {file} is of another: take an earlier one')
            for keys, tensor in share['tensors'].items():
                tensors[keys].append(tensor)
        for (*above, last), parts in tensors.items():
            place = checkpoint
            for key in above:
                place = place.setdefault(key, {})
            place[last] = torch.cat(parts) if len(parts) > 1 else parts[0]
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f'checkpoint {path} is sharded, and its shares do not fit: {error!r}') from error


def read_meta(source: str) -> dict:
    """The ``meta`` of a checkpoint. The data of its tensors is not read where that can be done without.

    Args:
        source: As in :func:`read_checkpoint`.

    Raises:
        CheckpointError: As :func:`read_checkpoint`. Damaged data of a tensor is not found.
    """
    path = _file_of(source)
    try:
        with warnings.catch_warnings(action='ignore'):
            meta = torch.load(path, map_location='cpu', mmap=True, weights_only=True)['meta']
    except Exception:  # of an old format, no checkpoint of mmengine's, or damaged
        meta = read_checkpoint(source).get('meta')
    return meta if isinstance(meta, dict) else {}


@CheckpointLoader.register_scheme('pvt://')
def load_from_published(filename: str, map_location: str | torch.device | None = None) -> dict:
    """``pvt://NAME`` for mmengine's loaders."""
    return read_checkpoint(filename, map_location or 'cpu')


def check_weights(state_dict: dict, source: str) -> None:
    """Checks that every entry of a state dict can be a weight.

    Args:
        state_dict: The weights by name.
        source: What the message calls them, a file or address.

    Raises:
        CheckpointError: A key is no string; a value is no plain tensor (dense, of floats, integers or booleans, with
            data); or a value is NaN or infinite.
    """
    faults, broken = [], []
    for key, value in state_dict.items():
        if not isinstance(key, str):
            faults.append(f'the key {key!r} is a {type(key).__name__}, not a name')
        elif fault := _not_plain(value):
            faults.append(f'{key!r} is {fault}')
        elif number := count_nonfinite(value):
            broken.append(f'{key!r} ({number} of {value.numel()} values)')  # a name can hold line breaks
    if faults:
        raise CheckpointError(f'{source} holds what is no weight: {_first(faults)}; save plain tensors alone')
    if broken:
        raise CheckpointError(f'{source} holds NaN or infinite weights: {_first(broken)}; take an earlier checkpoint')


def count_nonfinite(value: torch.Tensor) -> int:
    """How many values are NaN or infinite."""
    return int((~value.isfinite()).sum()) if value.is_floating_point() and not value.is_meta else 0


def cached_file(url: str) -> str:
    """Where torch.hub keeps the file of ``url``."""
    return osp.join(torch.hub.get_dir(), 'checkpoints', osp.basename(urlparse(url).path))


def _first(items: list[str], count: int = 5) -> str:
    return ', '.join(items[:count]) + (f' and {len(items) - count} more' if len(items) > count else '')


def _first_line(error: Exception) -> str:
    return str(error).partition('\n')[0]


def _not_plain(value: Any) -> str | None:
    """What keeps ``value`` from being a weight, if anything."""
    if not isinstance(value, torch.Tensor):
        return f'a {type(value).__name__}, not a tensor'
    if value.layout != torch.strided or value.is_nested:
        return f'a sparse or nested tensor ({value.layout})'
    if value.is_meta:
        return 'a meta tensor, without data'
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f'{tuple(value.shape)} values spread from fewer'
    if value.dtype not in PLAIN_DTYPES:
        return f'a tensor of {value.dtype}'
    return None


def _file_of(source: str) -> str:
    """The local file of ``source``, fetched if need be."""
    if source.startswith('hf://'):
        return _fetch_from_hugging_face(source)
    address = resolve(source)
    if '://' in address:
        return _fetch(address)
    path = osp.expanduser(address)
    if osp.isdir(path):
        files = [osp.join(path, name) for name in HUGGING_FACE_FILES if osp.isfile(osp.join(path, name))]
        if not files:
            raise CheckpointError(
                f'checkpoint {source} is a folder without {" or ".join(HUGGING_FACE_FILES)}: name a file'
            )
        return files[0]
    if not osp.exists(path):
        raise CheckpointError(f'checkpoint {source} does not exist')
    return path


def resolve(source: str) -> str:
    """The file or http address that a name like ``open-mmlab://resnet50`` stands for; other sources as they are."""
    scheme, separator, name = source.partition('://')
    if not separator or scheme in ('http', 'https'):
        return source
    if scheme == 'pvt':
        return published_address(name)
    try:
        if scheme in ('torchvision', 'modelzoo'):
            return mmengine_checkpoint.get_torchvision_models()[name]
        if scheme == 'mmcls':
            return mmengine_checkpoint.get_mmcls_models()[name]
        if scheme in ('open-mmlab', 'openmmlab'):
            name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
            address = mmengine_checkpoint.get_external_models()[name]
            return address if '://' in address else osp.join(mmengine_checkpoint._get_mmengine_home(), address)
        reason = f'unknown scheme {scheme}://'
    except (ImportError, KeyError) as error:  # torchvision:// without torchvision, an unknown name
        reason = f'{type(error).__name__}: {error}'
    raise CheckpointError(f'checkpoint {source} cannot be resolved ({reason}): give a file or an https address')


def _fetch(url: str) -> str:
    """The file of ``url`` in torch.hub's cache, downloaded if it is not there, by the first process for all."""
    if not is_main_process():
        barrier()
    path = cached_file(url)
    try:
        if not osp.basename(path):
            raise ValueError('it names no file')
        if not osp.exists(path):
            os.makedirs(osp.dirname(path), exist_ok=True)
            torch.hub.download_url_to_file(url, path)
    except (OSError, ValueError, http.client.HTTPException) as error:  # urllib's errors are OSErrors
        raise CheckpointError(
            f'{url} cannot be fetched ({error}): download it on a machine with a network and put it at {path}'
        ) from error
    finally:
        if is_main_process():
            barrier()
    return path


def _fetch_from_hugging_face(source: str) -> str:
    """The file of ``hf://OWNER/NAME[/FILE]`` in the cache of huggingface_hub, downloaded if it is not there."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise CheckpointError(
            f'checkpoint {source} needs huggingface_hub and safetensors: pip install huggingface_hub safetensors'
        ) from error
    owner, _, rest = source.removeprefix('hf://').partition('/')
    name, _, file = rest.partition('/')
    files = [file] if file else HUGGING_FACE_FILES
    for file in files:
        try:
            return hf_hub_download(f'{owner}/{name}', file)
        except (EntryNotFoundError, OSError, ValueError) as error:
            reason = error
    raise CheckpointError(
        f'checkpoint {source} cannot be fetched ({_first_line(reason)}): it needs a network once, and '
        f'{" or ".join(files)} in it; or give the folder of a copy'
    ) from reason


def _load(path: str, map_location: str | torch.device) -> Any:
    if path.endswith('.safetensors'):
        from safetensors.torch import load_file

        return load_file(path, device=str(map_location))
    if zipfile.is_zipfile(path):  # torch.load does not look at the checksums
        with zipfile.ZipFile(path) as archive:
            written = any(member.CRC for member in archive.infolist())  # torch.save can be told not to
            if written and (damaged := archive.testzip()):
                raise zipfile.BadZipFile(f'{damaged} has another checksum')
    _allow_inert_types()  # torch.serialization.safe_globals, as onedl-mmengine uses it, takes back types of others
    return torch.load(path, map_location=map_location, weights_only=True)


def _fault(path: str, error: Exception) -> str:
    """What is wrong with a file that did not load, and the way out."""
    message = str(error)
    refused = re.search(r'GLOBAL (\S+)|unrecognized (function .*)|(Can only .*)', message)
    if isinstance(error, pickle.UnpicklingError) and refused:
        return (
            f'holds more than data and was not loaded: {refused[refused.lastindex]}; '
            'save its state dict alone, where it was made'
        )
    if 'TorchScript' in message:
        return 'is a TorchScript program and was not loaded: save its state dict with torch.save, where it was made'
    try:
        with open(path, 'rb') as file:
            head = file.read(512)
    except OSError as unreadable:
        return f'cannot be read: {unreadable}'
    if not head:
        return 'cannot be read, it is empty: fetch or save it again'
    if head.startswith(b'version https://git-lfs'):
        return 'cannot be read, it is a git-LFS pointer: run git lfs pull where it came from'
    if head.lstrip().startswith(b'<'):
        return 'cannot be read, it is a web page: download the file itself'
    if head.startswith(b'\x80') and not head.startswith(pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)):
        return 'cannot be read, it is a plain pickle, which can run code: save its state dict with torch.save'
    # Of an UnpicklingError torch says only how to run the file.
    reason = '' if isinstance(error, pickle.UnpicklingError) else _first_line(error)
    return f'cannot be read, it is cut off, damaged or no checkpoint{reason and f" ({reason})"}'
