"""Reading checkpoints as data and saying what they held.

Importing this module closes the ways by which a checkpoint could run code (``weights_only=True`` everywhere) and
allows, by name, what mmengine's own checkpoints hold beyond tensors, so that they load and resume on torch >= 2.6.
"""
import os.path as osp
import pickle
import re
from dataclasses import dataclass, field
from typing import Any

import mmengine.runner.checkpoint as mmengine_checkpoint
import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.model import BaseModule, BaseTTAModel, is_model_wrapper
from mmengine.model.weight_init import PretrainedInit
from mmengine.runner import CheckpointLoader
from torch import nn

from .errors import SettingError


class CheckpointError(SettingError):
    """A checkpoint cannot be fetched or read, or does not fit."""


def _history_buffer_method(owner: Any, name: str) -> Any:
    """Stands in for ``builtins.getattr``: a pickled HistoryBuffer names its own statistics through it."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed in a checkpoint')


def _load_url(url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True) -> dict:
    """``torch.hub.load_state_dict_from_url`` with ``weights_only=True`` and one plain error offline."""
    try:
        return torch.hub.load_state_dict_from_url(
            url, model_dir, map_location=map_location, progress=progress, weights_only=True)
    except OSError as error:  # urllib's errors among them
        raise CheckpointError(f'{url} cannot be fetched ({error}): download it on a machine with a network '
                              f'and put it at {cached_file(url, model_dir)}') from error


def cached_file(url: str, model_dir: str | None = None) -> str:
    """Where torch.hub keeps the file of ``url``."""
    return osp.join(model_dir or osp.join(torch.hub.get_dir(), 'checkpoints'), osp.basename(url))


def _register_safe_loading() -> None:
    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    torch.serialization.add_safe_globals([
        HistoryBuffer,
        (_history_buffer_method, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        np.dtypes.Float64DType,
        np.dtypes.Int64DType,
        *((function, f'numpy.{core}.multiarray.{name}')  # numpy 2's and numpy 1's place of it
          for function, name in [(reconstruct, '_reconstruct'), (scalar, 'scalar')] for core in ('_core', 'core')),
    ])
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
        raise CheckpointError(f'checkpoint {source} cannot be resolved ({type(error).__name__}: {error}): '
                              'give a file or an https address') from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = next((line.strip() for line in str(error).split('\n') if _REFUSED.search(line)), None)
        if reason:
            raise CheckpointError(f'checkpoint {source} holds more than data and was not loaded: {reason}') from error
        reason = (str(error) or 'it is empty').splitlines()[0]
        remedy = f'; remove {cached_file(source)} to fetch it again' if '://' in source else ''
        raise CheckpointError(
            f'checkpoint {source} cannot be read, it is damaged or no checkpoint: {reason}{remedy}') from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f'checkpoint {source} holds a {type(checkpoint).__name__}, not a state dict')
    return checkpoint


def find_state_dict(checkpoint: dict) -> dict[str, torch.Tensor]:
    """The state dict in a checkpoint: under ``state_dict`` (OpenMMLab), ``model`` (DETR, DeiT) or itself."""
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
            break
    return {key.removeprefix('module.'): value for key, value in checkpoint.items()}


@dataclass
class LoadReport:
    """What became of each key when a state dict met a model."""
    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)  # position embeddings, among the loaded
    classifier: list[str] = field(default_factory=list)  # only a classifier has them; expected to be left out
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether every weight of the model was loaded and none of the checkpoint's was left without a reason."""
        return not (self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        lines = [f'{len(self.loaded)} weights loaded']
        for title, keys in {
                'position embeddings resized': self.resized,
                'left out, as they belong to the classifier': self.classifier,
                'MISSING in the checkpoint': self.missing,
                'UNEXPECTED in the checkpoint': self.unexpected,
                'OF ANOTHER SHAPE, not loaded': self.misshapen
        }.items():
            if keys:
                lines.append(f'{title} ({len(keys)}): {", ".join(keys)}')
        return '; '.join(lines)


def load_weights(model: nn.Module, state_dict: dict[str, torch.Tensor], source: str, strict: bool = False,
                 pretrained: bool = False) -> LoadReport:
    """Loads what fits into ``model`` and says by name, once, in the log what did not.

    Position embeddings of a PVT are resized to the model's, and the classifier's weights left out where the model
    has no classifier.

    Args:
        model: The model, wrapped (DDP, test-time augmentation) or not.
        state_dict: The weights by name.
        source: What the messages call them, a file or address.
        strict: Raise if a weight of the model is missing or of another shape, as in testing and resuming.
        pretrained: The weights were learned elsewhere, on square images.

    Raises:
        CheckpointError: Nothing fits, or ``strict`` and not everything of the model was there.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    report = LoadReport()
    state_dict = dict(state_dict)
    for name, module in model.named_modules():
        if hasattr(module, 'adapt_state_dict'):
            module.adapt_state_dict(state_dict, f'{name}.' if name else '', report, pretrained)
    own = model.state_dict()
    for key in sorted(own.keys() & state_dict.keys()):
        if own[key].shape == state_dict[key].shape:
            report.loaded.append(key)
        else:
            report.misshapen.append(f'{key} {tuple(state_dict.pop(key).shape)}, not {tuple(own[key].shape)}')
    if not report.loaded:
        raise CheckpointError(
            f'{source}: none of its {len(state_dict)} weights ({", ".join(list(state_dict)[:3])}, ...) fits the '
            f'{type(model).__name__} ({", ".join(list(own)[:3])}, ...): it is a checkpoint of another model')
    missing, report.unexpected = model.load_state_dict(state_dict, strict=False)
    misshapen = {entry.split(' ')[0] for entry in report.misshapen}
    report.missing = [key for key in missing if key not in misshapen]
    print_log(f'{source}: {report}', logger='current', level=20 if report.clean else 30)
    lacking = report.missing + report.misshapen
    if strict and lacking:
        more = f' and {len(lacking) - 5} more (the log names them all)' if len(lacking) > 5 else ''
        raise CheckpointError(f'{source} does not hold the weights of this {type(model).__name__}: missing or of '
                              f'another shape are {", ".join(lacking[:5])}{more}')
    return report


def load_pretrained(model: nn.Module, checkpoint: str, prefix: str | None = None,
                    map_location: Any = 'cpu') -> LoadReport:
    """What ``init_cfg=dict(type='Pretrained', ...)`` means for a PVT; the arguments are mmengine's.

    Args:
        model: The backbone.
        checkpoint: A path or address.
        prefix: Take only the weights whose names begin so ('backbone.' for those of a detector), and cut it off.

    Raises:
        CheckpointError: It cannot be read, or nothing in it fits.
    """
    state_dict = find_state_dict(read_checkpoint(checkpoint, map_location))
    if prefix is not None:
        prefix = prefix.removesuffix('.') + '.'
        state_dict = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        if not state_dict:
            raise CheckpointError(f'{checkpoint}: no weight in it begins with {prefix!r}, the given prefix')
    return load_weights(model, state_dict, checkpoint, pretrained=True)


class PretrainedModule(BaseModule):
    """A module whose ``init_cfg=dict(type='Pretrained', ...)`` loads through :func:`load_pretrained`."""

    def init_weights(self) -> None:
        """Initialises as mmengine does, then loads the pretrained weights that ``init_cfg`` names."""
        init_cfg = self.init_cfg or []
        pretrained, self.init_cfg = [], []
        for entry in init_cfg if isinstance(init_cfg, list) else [init_cfg]:
            (pretrained if entry.get('type') in ('Pretrained', PretrainedInit) else self.init_cfg).append(entry)
        super().init_weights()
        self.init_cfg = init_cfg
        for entry in pretrained:
            load_pretrained(self, **{key: value for key, value in entry.items() if key != 'type'})
