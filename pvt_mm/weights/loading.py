"""Loading weights into a model and saying what they held."""

import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

from ..errors import CheckpointError
from .formats import find_backbones, identify, strip_wrappers
from .reading import check_weights, read_checkpoint


def find_state_dict(checkpoint: dict, source: str) -> dict[str, torch.Tensor]:
    """The state dict in a checkpoint, without the prefixes of wrappers; it keeps its metadata.

    It stands under ``state_dict`` (OpenMMLab), ``model`` (DETR, DeiT), or is the checkpoint itself.

    Args:
        checkpoint: What :func:`read_checkpoint` returns.
        source: What messages call it, a file or address.

    Raises:
        CheckpointError: It is empty, or an entry of it cannot be a weight.
    """
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
            break
    if not checkpoint:
        raise CheckpointError(f'{source} holds no weights: save the state dict of a model')
    check_weights(checkpoint, source)
    return strip_wrappers(checkpoint)


@dataclass
class LoadReport:
    """What became of each key when a state dict met a model."""

    loaded: list[str] = field(default_factory=list)
    converted: list[str] = field(default_factory=list)  # backbones whose weights had the names of another format
    resized: list[str] = field(default_factory=list)  # position embeddings, among the loaded
    guessed: list[str] = field(default_factory=list)  # grids of position embeddings that the checkpoint does not tell
    ambiguous: list[str] = field(default_factory=list)  # the same, where other grids fit as well
    untold: list[str] = field(default_factory=list)  # position embeddings whose grids nothing tells
    classifier: list[str] = field(default_factory=list)  # only a classifier has them; expected to be left out
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    nonfinite: list[str] = field(default_factory=list)  # with the number of values, among the loaded

    @property
    def clean(self) -> bool:
        """Whether every weight of the model was loaded and none of the checkpoint's was left without a reason."""
        return not (self.missing or self.unexpected or self.misshapen or self.untold or self.nonfinite)

    @property
    def has_news(self) -> bool:
        """Whether anything but loading happened."""
        return any(value for key, value in vars(self).items() if key != 'loaded')

    def log(self, source: str) -> None:
        """Says it once in the log: as a warning unless it is clean and sure."""
        level = logging.INFO if self.clean and not self.ambiguous else logging.WARNING
        print_log(f'{source}: {self}', logger='current', level=level)

    def __str__(self) -> str:
        lines = [f'{len(self.loaded)} weights loaded'] if self.loaded else []
        for title, keys in {
            'names converted': self.converted,
            'position embeddings resized': self.resized,
            'grids of position embeddings guessed, as the checkpoint does not tell them': self.guessed,
            'grids of position embeddings GUESSED, where others fit too (if they are wrong, load the checkpoint into a '
            'model of the img_size that it was trained with, and save that)': self.ambiguous,
            'position embeddings of UNKNOWN grids (load them into a model of the img_size that they were trained with, '
            'and save that)': self.untold,
            'left out, as they belong to the classifier': self.classifier,
            'MISSING in the checkpoint': self.missing,
            'UNEXPECTED in the checkpoint': self.unexpected,
            'OF ANOTHER SHAPE, not loaded': self.misshapen,
            'NaN OR INFINITE (take an earlier checkpoint)': self.nonfinite,
        }.items():
            if keys:
                lines.append(f'{title} ({len(keys)}): {", ".join(keys)}')
        return '; '.join(lines)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DDP, test-time augmentation, ``torch.compile`` and the like."""
    while True:
        if hasattr(model, '_orig_mod'):
            model = model._orig_mod
        elif is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        else:
            return model


def adapt_state_dict(model: nn.Module, state_dict: dict[str, torch.Tensor], source: str) -> LoadReport:
    """Makes a state dict fit every backbone of ours in ``model``, in place, as each does itself when it is loaded.

    Raises:
        CheckpointError: A backbone finds none of its weights, or no grid for its position embeddings.
    """
    report = LoadReport()
    metadata = getattr(state_dict, '_metadata', {})
    for name, module in unwrap(model).named_modules():
        if not hasattr(module, 'adapt_state_dict'):
            continue
        prefix = f'{name}.' if name else ''
        module.adapt_state_dict(state_dict, prefix, metadata.setdefault(name, {}), report)
        own = list(module.state_dict())
        if not any(prefix + key in state_dict for key in own):
            raise CheckpointError(f'{source}: {_foreign(state_dict, module, prefix, own)}')
    if report.untold:
        raise CheckpointError(
            f'{source} does not tell the grids of its position embeddings, {", ".join(report.untold)}: load it into a '
            'model of the img_size that they were trained with, and save that'
        )
    return report


def _foreign(state_dict: dict, module: nn.Module, prefix: str, own: list[str]) -> str:
    """Why a backbone found none of its weights, and the way out."""
    text = (
        f'none of its {len(state_dict)} weights ({", ".join(list(state_dict)[:3])}, ...) fits the '
        f'{type(module).__name__} ({prefix}{own[0]}, ...)'
    )
    backbones = find_backbones(state_dict)
    if not backbones:
        return f'{text}: it is a checkpoint of another model'
    families = {key: identify(cut_prefix(state_dict, key))[0].name for key in backbones}
    if module.family not in families.values():
        return f'{text}: it is a checkpoint of a {" and a ".join(dict.fromkeys(families.values()))}'
    own = {key: form for key, form in backbones.items() if families[key] == module.family}
    found = ' and '.join(f'{form} {f"under {key!r}" if key else "at its top"}' for key, form in own.items())
    key = next(iter(own))
    settings = "type='Pretrained', checkpoint=..." + (f', prefix={key!r}' if key else '')
    return (
        f"{text}. It holds a {module.family} in the format {found}: load it by the backbone's init_cfg=dict({settings})"
    )


def load_weights(
    model: nn.Module, state_dict: dict[str, torch.Tensor], source: str, strict: bool = False, resume: bool = False
) -> LoadReport:
    """Loads what fits into ``model`` and says by name, once, in the log what did not.

    Position embeddings of a PVT are resized to the model's, and the classifier's weights left out where the model
    has no classifier.

    Args:
        model: The model, wrapped (DDP, test-time augmentation) or not.
        state_dict: The weights by name.
        source: What the messages call them, a file or address.
        strict: Raise if a weight of the model is missing or of another shape, as in testing and resuming.
        resume: Raise if position embeddings have another size: the optimizer's state would not fit them.

    Raises:
        CheckpointError: Nothing fits, or ``strict`` or ``resume`` does not allow what was found.
    """
    model = unwrap(model)

    state_dict = _below_classifier(model, _copy(state_dict))
    report = adapt_state_dict(model, state_dict, source)
    if resume and report.resized:
        raise CheckpointError(
            f'{source} was trained with another img_size ({", ".join(report.resized)}): resume with that img_size, or '
            'start a new run from its weights with load_from'
        )
    own = model.state_dict()
    for key in sorted(own.keys() & state_dict.keys()):
        if own[key].shape == state_dict[key].shape:
            report.loaded.append(key)
        else:
            report.misshapen.append(f'{key} {tuple(state_dict.pop(key).shape)}, not {tuple(own[key].shape)}')
    if report.misshapen and not report.loaded:
        raise CheckpointError(
            f'{source} fits the {type(model).__name__} by names alone, all of its weights are of another shape: '
            f'{", ".join(report.misshapen[:3])}, ...'
        )
    if not report.loaded:
        raise CheckpointError(
            f'{source}: none of its {len(state_dict)} weights ({", ".join(list(state_dict)[:3])}, ...) fits the '
            f'{type(model).__name__} ({", ".join(list(own)[:3])}, ...): it is a checkpoint of another model'
        )
    missing, unexpected = model.load_state_dict(state_dict, strict=False)
    report.unexpected += unexpected
    misshapen = {entry.split(' ')[0] for entry in report.misshapen}
    report.missing = [key for key in missing if key not in misshapen]
    report.log(source)
    lacking = report.missing + report.misshapen
    if strict and lacking:
        more = f' and {len(lacking) - 5} more (the log names them all)' if len(lacking) > 5 else ''
        raise CheckpointError(
            f'{source} does not hold the weights of this {type(model).__name__}: missing or of '
            f'another shape are {", ".join(lacking[:5])}{more}'
        )
    return report


def _below_classifier(model: nn.Module, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A backbone's own state dict under the name that the backbone has in a classifier, which has no other weights."""
    parts = {key.partition('.')[0] for key in model.state_dict()}
    part = getattr(model, next(iter(parts)), None) if len(parts) == 1 else None
    if not hasattr(part, 'adapt_state_dict') or '' not in find_backbones(state_dict):
        return state_dict
    (name,) = parts
    moved = OrderedDict((f'{name}.{key}', value) for key, value in state_dict.items())
    metadata = getattr(state_dict, '_metadata', {})
    moved._metadata = {f'{name}.{key}'.removesuffix('.'): value for key, value in metadata.items()}
    return moved


def _copy(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A shallow copy with its metadata."""
    copied = OrderedDict(state_dict)
    copied._metadata = {key: dict(value) for key, value in getattr(state_dict, '_metadata', {}).items()}
    return copied


def load_pretrained(
    model: nn.Module, checkpoint: str, prefix: str | None = None, map_location: Any = 'cpu'
) -> LoadReport:
    """What ``init_cfg=dict(type='Pretrained', ...)`` means for a PVT; the arguments are mmengine's.

    Args:
        model: The backbone.
        checkpoint: A path or address.
        prefix: Take only the weights whose names begin so ('backbone.' for those of a detector), and cut it off.
            Without it, those of the one backbone that the checkpoint holds, wherever it stands.

    Raises:
        CheckpointError: It cannot be read, or nothing in it fits.
    """
    state_dict = find_state_dict(read_checkpoint(checkpoint, map_location), checkpoint)
    if prefix is None:
        prefixes = find_backbones(state_dict)
        prefix = next(iter(prefixes)) if len(prefixes) == 1 else ''
    prefix = prefix and prefix.removesuffix('.') + '.'
    own = cut_prefix(state_dict, prefix)
    if not own:
        raise CheckpointError(f'{checkpoint}: no weight in it begins with {prefix!r}, the given prefix')
    return load_weights(model, own, checkpoint)


def cut_prefix(state_dict: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The weights whose names begin with ``prefix``, without it, and their metadata."""
    cut = OrderedDict((key.removeprefix(prefix), value) for key, value in state_dict.items() if key.startswith(prefix))
    metadata, name = getattr(state_dict, '_metadata', {}), prefix.removesuffix('.')
    cut._metadata = {
        key.removeprefix(name).removeprefix('.'): value
        for key, value in metadata.items()
        if key == name or key.startswith(prefix)
    }
    return cut
