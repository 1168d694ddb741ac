"""What every backbone here does when weights are saved, loaded or initialised."""

import logging
import re
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.model.weight_init import PretrainedInit
from torch import Tensor, nn

from ..errors import CheckpointError
from ..weights.formats import identify, to_published
from ..weights.loading import LoadReport, load_pretrained
from ..weights.reading import count_nonfinite
from .grids import find_grids, told_grids
from .layers import Size, resize_position

# What a classifier has beyond a dense model.
CLASSIFIER_KEYS = ('cls_token', 'norm.weight', 'norm.bias', 'head.weight', 'head.bias')
# mmseg's base configs name the weights of a ResNet so.
FROM_BASE = 'if it came from a base config, drop it with model.pretrained=None, in a file model = dict(pretrained=None)'


class Backbone(BaseModule):
    """A module that makes the weights it is given fit, whoever loads them.

    Every loader ends in :meth:`torch.nn.Module._load_from_state_dict`: ``load_state_dict``, mmengine's
    ``load_checkpoint``, ``init_detector``, EMA, DDP. There, weights of another format get our names, position
    embeddings are resized to this model's grids, and a classifier's weights are left out where there is no classifier.
    A state dict of ours tells the grids of its position embeddings in its metadata.

    A subclass sets ``img_size``, the image size (height, width) in pixels that its position embeddings are for;
    ``strides``, the stride in pixels of each of them by name, the finest first; ``num_classes``, None without a
    classifier; and ``family``, whose other formats it reads.

    Args:
        init_cfg: As in :class:`mmengine.model.BaseModule`.
        pretrained: Short for ``init_cfg=dict(type='Pretrained', checkpoint=pretrained)``. Where both are given,
            ``init_cfg`` holds, which is said: mmseg hands on a ``pretrained`` that its base configs set for a ResNet.
    """

    family: str | None = None  # the name of one of weights.formats.FAMILIES

    def __init__(self, init_cfg: dict | list | None = None, pretrained: str | None = None):
        if pretrained is not None and init_cfg is not None:
            print_log(
                f'{type(self).__name__}: pretrained={pretrained!r} is not used, init_cfg is; {FROM_BASE}',
                logger='current',
                level=logging.WARNING,
            )
        elif pretrained is not None:
            init_cfg = dict(type='Pretrained', checkpoint=pretrained)
        super().__init__(init_cfg)
        self.pretrained = pretrained
        self.img_size: Size = (0, 0)
        self.strides: dict[str, int] = {}
        self.num_classes: int | None = None
        self.register_state_dict_post_hook(_tell_grids)

    @property
    def grids(self) -> dict[str, Size]:
        """The grid (H, W) of each position embedding, by name."""
        return {name: (self.img_size[0] // s, self.img_size[1] // s) for name, s in self.strides.items()}

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """The depth of a parameter, for layer-wise learning-rate decay, as mmpretrain's backbones tell it.

        Args:
            param_name: The parameter's name.
            prefix: What the names of this module's parameters begin with.

        Returns:
            The depth, and the number of depths. The first patch embedding and its positions are at 0, the blocks of all
            stages at 1, 2, ...; a later stage's embedding is where its first block is, its norm where its last is. All
            else is at the last depth.
        """
        blocks = [len(part) for name, part in self.named_children() if name.startswith('block')]
        last = sum(blocks) + 1
        found = re.match(r'(patch_embed|pos_embed|blocks?|norm)(\d*)\.?(\d*)', param_name.removeprefix(prefix))
        if not param_name.startswith(prefix) or found is None or found[1] == 'norm' and not found[2]:
            return last, last + 1
        stage = int(found[2] or 1)
        before = sum(blocks[: stage - 1])
        if found[1] == 'norm':
            return before + blocks[stage - 1], last + 1
        if found[1].startswith('block'):
            return before + 1 + int(found[3]), last + 1
        return before + 1 if stage > 1 else 0, last + 1

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: dict, *args) -> None:
        report, local_metadata = LoadReport(), dict(local_metadata)  # the caller's, who may load it elsewhere
        self.adapt_state_dict(state_dict, prefix, local_metadata, report)
        own = list(self.state_dict())
        if not any(prefix + key in state_dict for key in own):
            report.missing.append(f'all {len(own)} weights of the {type(self).__name__}, {prefix}{own[0]} and so on')
        for key in (prefix + name for name in own):
            if isinstance(state_dict.get(key), Tensor) and (number := count_nonfinite(state_dict[key])):
                report.nonfinite.append(f'{key} ({number} of {state_dict[key].numel()} values)')
        if report.has_news:
            report.log(f'{type(self).__name__} {prefix.removesuffix(".")}'.strip())
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def adapt_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict, report: LoadReport
    ) -> None:
        """Makes the weights of a backbone fit this one.

        Args:
            state_dict: Weights by name, changed in place.
            prefix: What the names of this module's weights begin with.
            local_metadata: The state dict's metadata of this module. ``grids`` in it tells the grid (H, W) of each
                position embedding by name; it is read and set.
            report: Records the keys that were changed.

        Raises:
            CheckpointError: The names fit two formats.
        """
        self._rename(state_dict, prefix, report)
        self._resize_positions(state_dict, prefix, local_metadata.get('grids'), report)
        local_metadata['grids'] = dict(self.grids)
        if self.num_classes is None:
            for key in CLASSIFIER_KEYS:
                if state_dict.pop(prefix + key, None) is not None:
                    report.classifier.append(prefix + key)

    def _rename(self, state_dict: dict[str, Tensor], prefix: str, report: LoadReport) -> None:
        """Gives weights of another format our names."""
        weights = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
        found = identify(weights)
        if found is None or found[0].name != self.family or found[1] == 'published':
            return
        renamed, dropped = to_published(weights)
        for key in weights:
            del state_dict[prefix + key]
        state_dict.update({prefix + key: value for key, value in renamed.items()})
        report.converted.append(f'{prefix.removesuffix(".") or "all"}, from the names of {found[1]}')
        report.unexpected += [prefix + key for key in dropped]

    def _resize_positions(self, state_dict: dict[str, Tensor], prefix: str, told: Any, report: LoadReport) -> None:
        """Resizes the position embeddings to this model's grids."""
        names = [name for name in self.grids if self._is_position(name, state_dict.get(prefix + name))]
        if not names:
            return
        rows = [state_dict[prefix + name].shape[1] for name in names]
        found = told_grids(told, names, rows) or find_grids(
            rows,
            [self._class_rows(name) for name in names],
            [self.strides[name] for name in names],
            self.img_size,
            square=any(prefix + key in state_dict for key in ('cls_token', 'head.weight')),
        )
        if found is None:
            report.untold += [f'{prefix}{name} ({number} rows)' for name, number in zip(names, rows)]
            return
        for name, grid in zip(names, found.grids):
            key, own = prefix + name, getattr(self, name).detach()
            value, num_class_rows = state_dict[key], self._class_rows(name)
            if value.shape[1] == grid[0] * grid[1] and num_class_rows:
                value = torch.cat([own[:, :num_class_rows].to(value), value], dim=1)
            if grid != self.grids[name]:
                exact = value.to(torch.promote_types(value.dtype, torch.float32))
                value = resize_position(exact, grid, self.grids[name]).to(value.dtype)
                report.resized.append(f'{key} {_text(grid)} to {_text(self.grids[name])}')
            state_dict[key] = value
        resized = found.grids != [self.grids[name] for name in names]
        if found.reason and (resized or found.ambiguous):
            grids = ', '.join(f'{prefix}{name} {_text(grid)}' for name, grid in zip(names, found.grids))
            (report.ambiguous if found.ambiguous else report.guessed).append(f'{grids} ({found.reason})')

    def _is_position(self, name: str, value: Any) -> bool:
        own = getattr(self, name)
        return (
            isinstance(value, Tensor)
            and value.is_floating_point()
            and value.ndim == 3
            and value.shape[::2] == own.shape[::2]
        )

    def _class_rows(self, name: str) -> int:
        """How many rows of the position embedding ``name`` are the class token's."""
        return getattr(self, name).shape[1] - self.grids[name][0] * self.grids[name][1]

    def frozen_modules(self) -> list[nn.Module]:
        """The modules that do not learn: they stay in evaluation mode."""
        return []

    def train(self, mode: bool = True) -> 'Backbone':
        super().train(mode)
        for module in self.frozen_modules():
            module.eval()
        return self

    def init_weights(self) -> None:
        """Initialises as mmengine does, then loads the pretrained weights that ``init_cfg`` names.

        Raises:
            CheckpointError: They cannot be read, or none fits.
        """
        init_cfg = self.init_cfg or []
        pretrained, self.init_cfg = [], []
        for entry in init_cfg if isinstance(init_cfg, list) else [init_cfg]:
            (pretrained if entry.get('type') in ('Pretrained', PretrainedInit) else self.init_cfg).append(entry)
        super().init_weights()
        self.init_cfg = init_cfg
        for entry in pretrained:
            try:
                report = load_pretrained(self, **{key: value for key, value in entry.items() if key != 'type'})
            except CheckpointError as error:
                if entry['checkpoint'] != self.pretrained:
                    raise
                raise CheckpointError(f'{error}. It is named by pretrained; {FROM_BASE}') from error
            parameters, infos = dict(self.named_parameters()), getattr(self, '_params_init_info', {})
            for key in set(report.loaded) & set(parameters) if infos else ():
                infos[parameters[key]].update(
                    init_info=f'loaded from {entry["checkpoint"]}', tmp_mean_value=parameters[key].data.mean().cpu()
                )

    def _dump_init_info(self) -> None:
        """mmengine lists every parameter of a module built alone, where the load report says it all."""


def _tell_grids(module: nn.Module, state_dict: dict, prefix: str, local_metadata: dict) -> None:
    local_metadata['grids'] = dict(module.grids)


def _text(grid: Size) -> str:
    return f'{grid[0]}x{grid[1]}'
