"""Loading weights into a model and saying what they held."""

from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule, BaseTTAModel, is_model_wrapper
from mmengine.model.weight_init import PretrainedInit
from torch import nn

from ..errors import CheckpointError
from .reading import read_checkpoint


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
            'OF ANOTHER SHAPE, not loaded': self.misshapen,
        }.items():
            if keys:
                lines.append(f'{title} ({len(keys)}): {", ".join(keys)}')
        return '; '.join(lines)


def load_weights(
    model: nn.Module, state_dict: dict[str, torch.Tensor], source: str, strict: bool = False, pretrained: bool = False
) -> LoadReport:
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
            f'{type(model).__name__} ({", ".join(list(own)[:3])}, ...): it is a checkpoint of another model'
        )
    missing, report.unexpected = model.load_state_dict(state_dict, strict=False)
    misshapen = {entry.split(' ')[0] for entry in report.misshapen}
    report.missing = [key for key in missing if key not in misshapen]
    print_log(f'{source}: {report}', logger='current', level=20 if report.clean else 30)
    lacking = report.missing + report.misshapen
    if strict and lacking:
        more = f' and {len(lacking) - 5} more (the log names them all)' if len(lacking) > 5 else ''
        raise CheckpointError(
            f'{source} does not hold the weights of this {type(model).__name__}: missing or of '
            f'another shape are {", ".join(lacking[:5])}{more}'
        )
    return report


def load_pretrained(
    model: nn.Module, checkpoint: str, prefix: str | None = None, map_location: Any = 'cpu'
) -> LoadReport:
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
