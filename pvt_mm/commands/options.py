"""Misspelt keys of ``--cfg-options``, which mmengine takes without a word."""

import inspect
from difflib import get_close_matches

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner

from ..errors import SettingError

# Keys at the top of a config that mmengine's runner, mmdet or mmseg read and the runner's signature does not have.
TOP = (
    'auto_scale_lr',
    'bad_data',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'env_cfg',
    'find_unused_parameters',
    'log_level',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
)
# As near as this, a new key is taken for a slip: 'load_form' and 'load_from', 'optim_wraper' and 'optim_wrapper'.
NEAR = 0.8


def check_options(cfg: Config, options: dict) -> None:
    """Looks for keys that the config does not have, that nothing takes, and that are nearly one of its own.

    Args:
        cfg: The config before the options are merged into it.
        options: The new values, by keys with dots.

    Raises:
        SettingError: There are some. The message has a line for each, with the nearest name.
    """
    faults = []
    for option in options:
        parts = option.split('.')
        node, depth = _follow(cfg, parts)
        if depth == len(parts) or not isinstance(node, (dict, Config)):
            continue  # the config has it, or mmengine refuses it
        parent, part = parts[:depth], parts[depth]
        if '.'.join([*parent, 'type']) in options:
            continue  # another part, with arguments of its own
        known = _arguments(node, cfg.get('default_scope')) if parent else {*inspect.signature(Runner).parameters, *TOP}
        near = get_close_matches(part, {*node, *known}, n=1, cutoff=NEAR)
        if near and part not in known:
            faults.append(
                f'--cfg-options {option}: the config has no {".".join([*parent, part])}; '
                f'is it {".".join([*parent, *near])}?'
            )
    if faults:
        raise SettingError('\n'.join(faults))


def _follow(node, parts: list[str]) -> tuple[object, int]:
    """The innermost value of a config that ``parts`` lead to, and how many of them do."""
    for depth, part in enumerate(parts):
        if isinstance(node, (dict, Config)) and part in node:
            node = node[part]
        elif isinstance(node, (list, tuple)) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return node, depth
    return node, len(parts)


def _arguments(settings: dict, scope: str | None) -> set[str]:
    """What the parts that are registered as ``settings.type`` take, their base classes and subclasses included.

    Base classes receive ``**kwargs``; a flag can choose a subclass (``--amp``).
    """
    kind, names = settings.get('type'), set()
    if isinstance(kind, str):
        found = []
        for registry in vars(mmengine.registry).values():
            if isinstance(registry, Registry):
                with registry.switch_scope_and_registry(scope) as scoped:
                    found.append(scoped.get(kind))
    else:
        found = [kind]
    for part in filter(None, found):
        family = [*part.__mro__[:-1], *part.__subclasses__()] if isinstance(part, type) else [part]
        for member in family:
            names.update(inspect.signature(member).parameters)
    return names
