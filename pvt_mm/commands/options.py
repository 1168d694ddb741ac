"""Keys of ``--cfg-options`` that nothing takes, which mmengine merges without a word."""

import inspect
from difflib import get_close_matches

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from ..data.names import some
from ..errors import SettingError

# Keys at the top of a config that mmengine's runner, mmdet or mmseg read and the runner's signature does not have.
TOP = (
    'activation_checkpointing',
    'auto_scale_lr',
    'bad_data',
    'compile',
    'custom_imports',
    'data_source',
    'efficient_conv_bn_eval',
    'env_cfg',
    'exact_resume',
    'fast_coco_eval',
    'find_unused_parameters',
    'log_level',
    'model_wrapper_cfg',
    'nonfinite',
    'report',
    'resume_anyway',
    'runner_type',
    'shard',
    'shard_checkpoints',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
)
# Keys beside ``type`` that whoever builds a part takes out first, so that the part's signature does not have them.
BUILDERS = (
    '_delete_',
    '_scope_',
    'constructor',
    'convert_to_iter_based',
    'override',
    'paramwise_cfg',
    'priority',
    'requires_grad',
)
BUILT = ('type', '_scope_')  # keys that choose a part of the model, and are none of its arguments
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
LOADER = {*inspect.signature(DataLoader).parameters, 'num_batch_per_epoch'}
# As near as this, a new key is taken for a slip: 'load_form' and 'load_from', 'optim_wraper' and 'optim_wrapper'.
NEAR = 0.8


def check_options(cfg: Config, options: dict) -> None:
    """Looks for keys that the config does not have and that nothing takes.

    What takes a dict without ``type`` is unknown: of its keys only those that are nearly one of its own are refused.

    Args:
        cfg: The config before the options are merged into it.
        options: The new values, by keys with dots.

    Raises:
        SettingError: There are some. The message has a line for each, with the nearest name or the names there are.
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
        if not parent:
            taken, is_all = {*inspect.signature(Runner).parameters, *TOP}, True
        elif len(parent) == 1 and parent[0] in LOADERS:
            taken, is_all = LOADER, True
        else:
            taken, is_all = _arguments(node, cfg.get('default_scope'))
        if part in taken or is_all and part in BUILDERS:
            continue
        known = list(dict.fromkeys([*node, *sorted(taken - {'args', 'kwargs'})]))
        near = get_close_matches(part, known, n=1, cutoff=NEAR)
        missing = f'--cfg-options {option}: the config has no {".".join([*parent, part])}'
        if near:
            faults.append(f'{missing}; is it {".".join([*parent, *near])}?')
        elif is_all:
            faults.append(f'{missing}, and nothing takes it; {".".join(parent) or "it"} has {some(known, 30)}')
    if faults:
        raise SettingError('\n'.join(faults))


def unknown_keys(settings: dict, cls: type) -> list[str]:
    """The keys of a part of the model that its class does not take; none where that takes any."""
    taken, is_all = _signatures([cls])
    return [key for key in settings if key not in taken and key not in BUILT] if is_all else []


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


def _arguments(settings: dict, scope: str | None) -> tuple[set[str], bool]:
    """What the parts that are registered as ``settings.type`` take, and whether they take nothing else.

    Base classes receive ``**kwargs``; a flag can choose a subclass (``--amp``).
    """
    kind = settings.get('type')
    if isinstance(kind, str):
        found = []
        for registry in vars(mmengine.registry).values():
            if isinstance(registry, Registry):
                with registry.switch_scope_and_registry(scope) as scoped:
                    found.append(scoped.get(kind))
    else:
        found = [kind]
    return _signatures([part for part in found if part is not None])


def _signatures(found: list) -> tuple[set[str], bool]:
    """What parts take, and whether they take nothing else."""
    names, is_all = set(), True
    for part in found:
        family = [*part.__mro__[:-1], *part.__subclasses__()] if isinstance(part, type) else [part]
        for member in family:
            names.update(inspect.signature(member).parameters)
        is_all = is_all and not _takes_any(part)
    return names, is_all and bool(found)


def _takes_any(part) -> bool:
    """Whether ``**kwargs`` of a part go elsewhere than to a base class, which would refuse what it does not know."""
    for member in part.__mro__ if isinstance(part, type) else [part]:
        if member in (nn.Module, object):
            break
        if isinstance(part, type) and '__init__' not in vars(member):
            continue
        kinds = {parameter.kind for parameter in inspect.signature(member).parameters.values()}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            return False
    return True
