"""Runs the training step of a ``nonfinite_N.pth`` again: ``pvt-mm replay WORK_DIR/nonfinite_N.pth``

It prints the terms of the loss, the first output or gradient that is not finite, and the norms of the gradients. All of
it comes from the file: the batch, the weights, the random state and the model's settings. Nothing in the file is run as
a program; the parts of the model are those that the installed libraries register under the names in the settings.
"""

import argparse
import math
from collections import defaultdict
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.utils import import_modules_from_strings
from torch import nn

from ..engine.step import Findings, Step, unpack
from ..errors import CheckpointError
from ..weights.reading import read_checkpoint
from .launch import dicts, one_line_errors

PARTS = ('meta', 'config', 'args', 'kwargs', 'random', 'autocast', 'state_dict', 'optimizer')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file', help='what training left in its work dir')
    parser.add_argument(
        '--anomaly', action='store_true', help="name the first operation whose gradient is NaN (torch's anomaly mode)"
    )
    return parser.parse_args()


def build_model(config: dict[str, Any], source: str) -> nn.Module:
    """The model of a run's settings, in training mode, on the GPU if there is one.

    Raises:
        CheckpointError: The settings have no model, a part of it is not installed, or is named by its place in a module
            in place of a registered name: a file must not choose any function that there is.
    """
    config = ConfigDict(config)
    if not isinstance(config.get('model'), dict):
        raise CheckpointError(f'{source} holds no settings of the model, which was not built from a config')
    try:
        import_modules_from_strings(**config.get('custom_imports', dict(imports=None)))
        init_default_scope(config.get('default_scope') or 'mmengine')
        with MODELS.switch_scope_and_registry(config.get('default_scope')):
            scopes = {'', 'mmengine', *MODELS.children}
        for part in dicts(config.model):
            scope, _, name = str(part.get('type', 'None')).rpartition('.')
            if scope not in scopes or not name.isidentifier():
                raise CheckpointError(f'{source}: the model names {part["type"]!r}, which is no registered name')
        if 'data_preprocessor' in config:
            config.model.setdefault('data_preprocessor', config.data_preprocessor)
        model = revert_sync_batchnorm(MODELS.build(config.model))  # there is one process
    except (ImportError, KeyError) as error:
        reason = str(error).partition('\n')[0]
        raise CheckpointError(f'{source} cannot be run again: {reason}: install what the run had') from error
    return model.train().to('cuda' if torch.cuda.is_available() else 'cpu')


def gradient_norms(model: nn.Module) -> dict[str, float]:
    """The norm of the gradients of each part of a part of the model, as ``backbone.block1``."""
    parts = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            parts['.'.join(name.split('.')[:-1][:2])].append(parameter.grad)
    return {name: float(nn.utils.get_total_norm(gradients)) for name, gradients in parts.items()}


def log(meta: dict[str, Any], rates: list[float], found: Findings, norms: dict[str, float]) -> None:
    """Prints what the step showed in the run and shows again."""
    print(f'iteration {meta["iter"]}, epoch {meta["epoch"]}, process {meta["rank"]}')
    print(f'images: {", ".join(meta["images"])}')
    print(f'learning rate: {", ".join(f"{rate:g}" for rate in rates)}')
    print(f'\n{"":24}{"in the run":>14}{"again":>14}')
    for name in meta['losses'] | found.losses:
        then, now = (f'{losses[name]:.6g}' if name in losses else '-' for losses in (meta['losses'], found.losses))
        print(f'{name:24}{then:>14}{now:>14}')
    if norms:
        print('\nnorm of the gradients')
        for name, norm in norms.items():
            print(f'{name:40} {norm:.6g}')
    if found.error:
        print(f'\n{type(found.error).__name__}: {found.error}')
    print(f'\n{found.cause or "all of it is finite"}')
    if found.cause == meta['cause'] and _equal(found.losses, meta['losses']):
        print('The step comes out as in the run.')
    else:
        print(f'The step comes out otherwise than in the run: {meta["cause"] or "its losses were others"}')


def _equal(losses: dict[str, float], others: dict[str, float]) -> bool:
    """Whether the values are the same, up to rounding: the threads or the device can be others."""
    return losses.keys() == others.keys() and all(
        math.isclose(value, others[name], rel_tol=1e-4) or math.isnan(value) and math.isnan(others[name])
        for name, value in losses.items()
    )


@one_line_errors
def main() -> None:
    args = parse_args()
    content = read_checkpoint(args.file)
    lacking = [part for part in PARTS if part not in content]
    if lacking:
        raise CheckpointError(f'{args.file} is no step of a training, it lacks {", ".join(lacking)}')
    model = build_model(content['config'], args.file)
    model.load_state_dict(content['state_dict'])
    device = next(model.parameters()).device
    autocast = content['autocast'] and getattr(torch, content['autocast'].removeprefix('torch.'))
    inputs = unpack(content['args'], device), unpack(content['kwargs'], device)
    step = Step(*inputs, unpack(content['random'], 'cpu'), autocast)
    with torch.autograd.set_detect_anomaly(args.anomaly):
        found = step.run(model)
    rates = [group['lr'] for group in content['optimizer']['param_groups']]
    log(content['meta'], rates, found, gradient_norms(model))
