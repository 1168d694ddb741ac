"""A model or its optimizer shared among the processes of a run: ``shard='fsdp'`` or ``shard='zero'`` in a config.

Checkpoints stay those of one process, whole and in mmengine's format; with ``shard_checkpoints=True`` each process
writes its own share beside. Any number of processes can go on from either, sharded in any way or not at all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
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
from torch.utils._pytree import KeyPath, tree_map, tree_map_with_path

from ..errors import SettingError

SHARDS = ('fsdp', 'zero')


def check_shard(cfg: Config) -> None:
    """Raises SettingError where ``shard`` is unknown, or other settings of the config do not go with it."""
    shard = cfg.get('shard')
    if shard not in (None, *SHARDS):
        raise SettingError(f"shard={shard!r} is unknown: give 'fsdp' or 'zero'")
    if cfg.get('shard_checkpoints') and not shard:
        raise SettingError("shard_checkpoints=True needs shard='fsdp' or 'zero': else no process has a share")
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
def gathered(runner: Runner, whole: bool = True) -> Iterator[dict[tuple, Tensor]]:
    """Inside, the first process can save model and optimizer alone. All processes enter it together.

    Args:
        runner: The runner.
        whole: Gather what the processes share. Else it is left out: empty tensors of the model stand for it.

    Yields:
        With ``whole=False``, this process's shares by the keys that lead to each in a checkpoint. Those of all
        processes, in the order of their ranks, make up the whole tensor. Else nothing.
    """
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    parts, shares = {}, {}
    if isinstance(runner.model, FSDPModule):
        parts = dict(state_dict=runner.model, optimizer=optimizer)
    elif isinstance(optimizer, ZeroRedundancyOptimizer):
        parts = dict(optimizer=optimizer)
    for key, part in parts.items():
        if whole:
            state = part.state_dict()  # of ZeRO it is a joint work too
            saved = tree_map(_gather, state)
        elif part is optimizer and isinstance(optimizer, ZeroRedundancyOptimizer):
            state = saved = dict(Optimizer.state_dict(optimizer), state={})
            for parameter, values in optimizer.optim.state.items():
                place = (key, 'state', optimizer._param_to_index[parameter])
                shares |= {(*place, name): value for name, value in values.items()}
        else:
            state = part.state_dict()
            saved = tree_map_with_path(partial(_share_out, shares, key), state)
        if hasattr(state, '_metadata'):
            saved._metadata = state._metadata
        part.state_dict = lambda saved=saved: saved
    try:
        yield shares
    finally:
        for part in parts.values():
            del part.state_dict


def _gather(value: Any) -> Any:
    if not isinstance(value, DTensor):
        return value
    whole = value.full_tensor()
    return whole.cpu() if is_main_process() else None  # the others need not keep it


def _share_out(shares: dict[tuple, Tensor], key: str, path: KeyPath, value: Any) -> Any:
    if not isinstance(value, DTensor):
        return value
    shares[key, *(step.key for step in path)] = value.to_local().to('cpu', copy=True)  # of rows, as FSDP2 has them
    return torch.empty(0)
