"""The inferencers of mmdet and mmseg, which also know the models of this package by name."""

import re
from difflib import get_close_matches
from pathlib import Path

import yaml
from mmdet.apis import DetInferencer as _DetInferencer
from mmengine.config import Config
from mmseg.apis import MMSegInferencer as _MMSegInferencer
from torch import nn

from .commands.launch import find_config, shipped_configs
from .errors import SettingError
from .weights.reading import read_checkpoint

__all__ = ['DetInferencer', 'MMSegInferencer', 'find_config', 'list_models']
MIM = Path(__file__).parent / '.mim'
INFERENCERS = dict(  # by the default scope of a config
    mmdet='pvt_mm.apis.DetInferencer',
    mmseg='pvt_mm.apis.MMSegInferencer',
    mmpretrain='mmpretrain.ImageClassificationInferencer, which takes the path of the config',
)


def list_models(pattern: str = '') -> list[dict]:
    """The entries of this package's metafiles: ``Name``, ``Config``, ``Results``, ``Weights`` where anyone has them ...

    Args:
        pattern: A regular expression; only models with a match in their name are listed.
    """
    index = yaml.safe_load((MIM / 'model-index.yml').read_text())
    entries = [entry for file in index['Import'] for entry in yaml.safe_load((MIM / file).read_text())['Models']]
    return [entry for entry in entries if re.search(pattern, entry['Name'])]


class _KnowsOurs:
    """Looks for a model's name among this package's first, and reads checkpoints as its runner does."""

    _named = _checkpoint = None

    def _load_model_from_metafile(self, model: str) -> tuple[Config, str | None]:
        if path := shipped_configs().get(model.lower().removesuffix('.py')):
            self._named = model
            weights = {(MIM / entry['Config']).resolve(): entry.get('Weights') for entry in list_models()}
            return Config.fromfile(path), weights.get(path)
        try:
            return super()._load_model_from_metafile(model)
        except ValueError as error:
            names = [entry['Name'] for entry in list_models()]
            nearest = get_close_matches(model.lower(), names + self.list_models(self.scope)) or names[:1]
            raise SettingError(
                f'model {model} does not exist: give a config file, or the name of a model of pvt_mm or {self.scope}, '
                f'as {", ".join(nearest)}'
            ) from error

    def _init_model(self, cfg: Config, weights: str | None, device: str = 'cpu') -> nn.Module:
        scope = cfg.get('default_scope')
        if scope != self.scope and scope in INFERENCERS:
            name = self._named or getattr(cfg, 'filename', None) or 'the config'
            raise SettingError(f'{name} is of {scope}, for which there is {INFERENCERS[scope]}')
        if weights is not None:
            self._checkpoint = read_checkpoint(weights)
        elif self._named:
            raise SettingError(f'{self._named}: nobody publishes its weights; give a checkpoint, as weights=FILE')
        # Without a config, mmengine takes the checkpoint's.
        return super()._init_model(cfg, None if cfg else weights, device)

    def _load_weights_to_model(self, model: nn.Module, checkpoint: dict | None, cfg: Config) -> None:
        super()._load_weights_to_model(model, self._checkpoint, cfg)


class DetInferencer(_KnowsOurs, _DetInferencer):
    """mmdet's ``DetInferencer``, which also takes names such as ``'retinanet_pvt_small_1x'`` or
    ``'retinanet/pvt_small_1x'``.

    Raises:
        SettingError: There is no model of this name, or it is of another library; or a model of this package is named
            that has no public weights, and ``weights`` is None.
        CheckpointError: The weights cannot be fetched or read; the message says which file to put where.
    """


class MMSegInferencer(_KnowsOurs, _MMSegInferencer):
    """mmseg's ``MMSegInferencer``, which also takes names such as ``'semantic_fpn_pvt_small_80k'`` or
    ``'semantic_fpn/pvt_small_80k'``.

    Raises:
        SettingError: There is no model of this name, or it is of another library; or a model of this package is named
            that has no public weights, and ``weights`` is None.
        CheckpointError: The weights cannot be fetched or read; the message says which file to put where.
    """
