"""The inferencers of mmdet and mmseg, which also know the models of this package by name."""

import re
from pathlib import Path

import yaml
from mmdet.apis import DetInferencer as _DetInferencer
from mmengine.config import Config
from mmseg.apis import MMSegInferencer as _MMSegInferencer
from torch import nn

from .commands.launch import find_config
from .errors import SettingError

__all__ = ['DetInferencer', 'MMSegInferencer', 'find_config', 'list_models']
MIM = Path(__file__).parent / '.mim'


def list_models(pattern: str = '') -> list[dict]:
    """The entries of this package's metafiles: ``Name``, ``Config``, ``Results``, ``Weights`` where anyone has them ...

    Args:
        pattern: A regular expression; only models with a match in their name are listed.
    """
    index = yaml.safe_load((MIM / 'model-index.yml').read_text())
    entries = [entry for file in index['Import'] for entry in yaml.safe_load((MIM / file).read_text())['Models']]
    return [entry for entry in entries if re.search(pattern, entry['Name'])]


class _KnowsOurs:
    """Looks for a model's name in this package's metafiles first."""

    _named = ''

    def _load_model_from_metafile(self, model: str) -> tuple[Config, str | None]:
        for entry in list_models(f'^{re.escape(model.lower())}$'):
            self._named = entry['Name']
            return Config.fromfile(MIM / entry['Config']), entry.get('Weights')
        return super()._load_model_from_metafile(model)

    def _init_model(self, cfg: Config, weights: str | None, device: str = 'cpu') -> nn.Module:
        if self._named and weights is None:
            raise SettingError(f'{self._named}: nobody publishes its weights; give a checkpoint, as weights=FILE')
        return super()._init_model(cfg, weights, device)


class DetInferencer(_KnowsOurs, _DetInferencer):
    """mmdet's ``DetInferencer``, which also takes names such as ``'retinanet_pvt_small_1x'``.

    Raises:
        SettingError: A model of this package is named that has no public weights, and ``weights`` is None.
    """


class MMSegInferencer(_KnowsOurs, _MMSegInferencer):
    """mmseg's ``MMSegInferencer``, which also takes names such as ``'semantic_fpn_pvt_small_80k'``.

    Raises:
        SettingError: A model of this package is named that has no public weights, and ``weights`` is None.
    """
