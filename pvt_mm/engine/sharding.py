"""A model or its optimizer shared among the processes of a run: ``shard='fsdp'`` or ``shard='zero'`` in a config.

Checkpoints stay those of one process, whole and in mmengine's format: any number of processes can load them and go on
from them, sharded in any way or not at all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import EMAHook
from mmengine.optim import ZeroRedundancyOptimizer
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from ..errors import SettingError

SHARDS = ('fsdp', 'zero')


def check_shard(cfg: Config) -> None:
    """Raises SettingError where ``shard`` is unknown, or other settings of the config do not go with it."""
    shard = cfg.get('shard')
    if shard not in (None, *SHARDS):
        raise SettingError(f"shard={shard!r} is unknown: give 'fsdp' or 'zero'")
    if shard == 'fsdp' and any(map(_is_ema, cfg.get('custom_hooks') or ())):
        raise SettingError(
            "shard='fsdp': EMAHook copies the model, which FSDP2 does not allow: use shard='zero', or leave the hook "
            'out of custom_hooks'
        )
    if shard == 'fsdp' and cfg.get('model_wrapper_cfg'):
        raise SettingError("shard='fsdp' wraps the model in its own way: leave out model_wrapper_cfg")
    if shard == 'zero' and 'optim_wrapper' in cfg:
        shard_optimizer(cfg.optim_wrapper)


def _is_ema(hook: dict | EMAHook) -> bool:
    kind = hook['type'] if isinstance(hook, dict) else type(hook)
    kind = HOOKS.get(kind) if isinstance(kind, str) else kind
    return isinstance(kind, type) and issubclass(kind, EMAHook)


def shard_optimizer(optim_wrapper: dict) -> dict:
    """The settings of an OptimWrapper with mmengine's ZeRO around its optimizer: a process keeps some of the states.

    Raises:
        SettingError: The optimizer is none of torch.optim.
    """
    optimizer = optim_wrapper['optimizer']
    kind = optimizer['type']
    name = kind if isinstance(kind, str) else kind.__name__
    if not hasattr(torch.optim, name):
        raise SettingError(
            f"shard='zero' needs an optimizer of torch.optim, as AdamW, and not {name}: use shard='fsdp'"
        )
    return dict(optim_wrapper, optimizer=dict(optimizer, type=ZeroRedundancyOptimizer, optimizer_type=name))


def shard_model(model: nn.Module) -> None:
    """Shares the parameters of a model, with their gradients and optimizer states, among all processes (FSDP2).

    Each layer of the backbone (an entry of a ModuleList or Sequential, as a PVT's blocks) is gathered only while it
    computes. All else is gathered together, neck and heads too: mmdet and mmseg call ``forward`` of some heads
    directly, where FSDP2 does not see it.

    Args:
        model: It has its weights, the same in every process, and is changed.
    """
    for layer in _layers(getattr(model, 'backbone', model)):
        fully_shard(layer)
    fully_shard(model)
    for module in model.modules():
        module.register_load_state_dict_pre_hook(_distribute_weights)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    is_list = isinstance(module, nn.ModuleList | nn.Sequential)
    for child in module.children():
        if is_list and not isinstance(child, nn.ModuleList) and any(True for _ in child.parameters()):
            yield child
        else:
            yield from _layers(child)


def distribute(value: Any, like: Tensor) -> Any:
    """This process's share of a whole tensor, which every process has, where ``like`` is shared and of its shape."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    share = distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return share.clone()  # else it would keep the whole tensor in memory


def _distribute_weights(module: nn.Module, state_dict: dict[str, Any], prefix: str, *args) -> None:
    for name, parameter in module.named_parameters(recurse=False):
        if prefix + name in state_dict:
            state_dict[prefix + name] = distribute(state_dict[prefix + name], parameter)


def distribute_states(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A whole state dict with this process's share of it; a hook of :meth:`torch.optim.Optimizer.load_state_dict`."""
    keys, parameters = (
        [item for group in groups for item in group['params']]
        for groups in (state_dict['param_groups'], optimizer.param_groups)
    )
    like = dict(zip(keys, parameters))
    state = {
        key: {name: distribute(value, like[key]) for name, value in values.items()}
        for key, values in state_dict['state'].items()
    }
    return dict(state_dict, state=state)


@contextmanager
def gathered(runner: Runner) -> Iterator[None]:
    """Inside, the first process can save model and optimizer whole, alone. All processes enter it together."""
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    parts = []
    if isinstance(runner.model, FSDPModule):
        parts = [runner.model, optimizer]
    elif isinstance(optimizer, ZeroRedundancyOptimizer):
        parts = [optimizer]  # whose state_dict() is a joint work too
    for part in parts:
        state = part.state_dict()
        whole = tree_map(_gather, state)
        if hasattr(state, '_metadata'):
            whole._metadata = state._metadata
        part.state_dict = lambda whole=whole: whole
    try:
        yield
    finally:
        for part in parts:
            del part.state_dict


def _gather(value: Any) -> Any:
    if not isinstance(value, DTensor):
        return value
    whole = value.full_tensor()
    return whole.cpu() if is_main_process() else None  # the others need not keep it
