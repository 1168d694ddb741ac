"""One training step, kept as data so that it can be run again, in the run or from a file."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..errors import CheckpointError, TrainingError
from .saving import whole_file

# The keys under which :func:`pack` keeps the class of a sample or mask, and an array
CLASS, ARRAY = '__class__', '__array__'
KEPT = 3  # files in a work dir


def first_nonfinite(value: Any, name: str = '') -> str | None:
    """The first tensor of floats that holds a NaN or an infinity.

    Args:
        value: A tensor, or state dicts, lists, tuples and data samples of them.
        name: Its own name.

    Returns:
        The keys and indices that lead to it, joined by dots; None where all is finite.
    """
    if isinstance(value, Tensor):
        value = value.to_local() if hasattr(value, 'to_local') else value  # this process's part of a sharded one
        # The sum is seven times as fast on CPU, and finite only if all values are.
        is_finite = not value.is_floating_point() or value.sum().isfinite() or value.isfinite().all()
        return None if is_finite else name
    if isinstance(value, dict | BaseDataElement):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return None
    return next((found for key, item in items if (found := first_nonfinite(item, f'{name}.{key}'.lstrip('.')))), None)


def check_savable(state: dict[str, Any]) -> None:
    """Raises TrainingError where weights, or an optimizer's state, are not finite."""
    if part := first_nonfinite(state):
        raise TrainingError(
            f'{part} is not finite: no checkpoint is written. Go on from the last one (--resume) with a smaller '
            'learning rate'
        )


def image_names(value: Any) -> list[str]:
    """The path, or else the id, of each image among the data samples in ``value``."""
    if isinstance(value, BaseDataElement):
        name = value.get('img_path', value.get('img_id'))
        return [] if name is None else [str(name)]
    if isinstance(value, dict):
        value = list(value.values())
    return [name for item in value for name in image_names(item)] if isinstance(value, list | tuple) else []


def random_state() -> dict[str, Any]:
    """The states of all random number generators of this process."""
    state = dict(python=random.getstate(), numpy=np.random.get_state(), torch=torch.get_rng_state())
    return state | dict(cuda=torch.cuda.get_rng_state()) if torch.cuda.is_available() else state


def set_random_state(state: dict[str, Any]) -> None:
    """Puts the generators into the states that :func:`random_state` returned."""
    random.setstate(state['python'])
    np.random.set_state(state['numpy'])
    torch.set_rng_state(state['torch'])
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])


def loss_terms(model: BaseModel, losses: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
    """The loss of what a model returned, and the values of all its terms."""
    total, terms = model.parse_losses(losses)
    return total, {name: term.item() for name, term in terms.items()}


@dataclass
class Findings:
    """What a step that was run again shows.

    ``losses`` holds the terms that the model logs, and is empty where the forward pass fails. ``cause`` says in words
    where the first value arose that is not finite; None where all are.
    """

    losses: dict[str, float] = field(default_factory=dict)
    cause: str | None = None
    error: Exception | None = None


@dataclass
class Step:
    """What the forward pass of a training step starts from, besides the weights.

    Args:
        args: The arguments of the model: the batch, as the data preprocessor gave it.
        kwargs: Its keyword arguments.
        random: The random state, of :func:`random_state`.
        autocast: The type of mixed precision, None in full precision.
    """

    args: tuple
    kwargs: dict[str, Any]
    random: dict[str, Any]
    autocast: torch.dtype | None

    @classmethod
    def of(cls, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> 'Step':
        """The step that the call ``model(*args, **kwargs)`` begins."""
        device = next(model.parameters()).device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        return cls(args, kwargs, random_state(), dtype)

    def run(self, model: BaseModel) -> Findings:
        """Runs forward and backward, and looks at each module and gradient on the way.

        The gradients are added to those of the parameters. An error of the model's is kept in the findings.
        """
        found = Findings()
        if weight := first_nonfinite(model.state_dict()):
            found.cause = f'the weight {weight} is not finite before the step'
        elif item := first_nonfinite(dict(enumerate(self.args)) | self.kwargs):
            found.cause = f'{item} of the batch is not finite'
        set_random_state(self.random)
        device = next(model.parameters()).device.type
        try:
            with _watched(model, found):
                with torch.autocast(device, self.autocast, enabled=self.autocast is not None):
                    losses = model(*self.args, **self.kwargs)
                total, found.losses = loss_terms(model, losses)
                if total.requires_grad:
                    total.backward()
        except Exception as error:  # a matcher refuses costs that are NaN, anomaly detection raises, ...
            found.error = error
        return found


@contextmanager
def _watched(model: nn.Module, found: Findings) -> Iterator[None]:
    """Writes into ``found`` where the first value that is not finite arises, forward or backward."""
    last = None

    def after_forward(name: str, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        nonlocal last
        if found.cause is None and first_nonfinite([output]) and not first_nonfinite([args, kwargs]):
            found.cause = f'the first output that is not finite is of {name} ({type(module).__name__})'
            if not name:
                found.cause = f'the first value that is not finite is computed by the {type(module).__name__} itself'
                found.cause += f', after {last}' if last else ''
        last = name

    def after_gradient(name: str, parameter: nn.Parameter) -> None:
        if found.cause is None and first_nonfinite([parameter.grad]):
            found.cause = f'all losses are finite; the first gradient that is not is of {name}'

    handles = [
        module.register_forward_hook(partial(after_forward, name), with_kwargs=True)
        for name, module in model.named_modules()
    ] + [
        parameter.register_post_accumulate_grad_hook(partial(after_gradient, name))
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _sample_classes() -> dict[str, type]:
    """The classes of samples, boxes and masks that are loaded, by their full names. All hold data only."""
    classes, waiting = {}, [BaseDataElement]
    with suppress(ImportError):
        from mmdet.structures.bbox import BaseBoxes
        from mmdet.structures.mask.structures import BaseInstanceMasks

        waiting += [BaseBoxes, BaseInstanceMasks]
    while waiting:
        kind = waiting.pop()
        classes[f'{kind.__module__}.{kind.__qualname__}'] = kind
        waiting += kind.__subclasses__()
    return classes


def pack(value: Any) -> Any:
    """A copy that :func:`torch.load` reads with ``weights_only=True``, on the CPU.

    Samples, boxes and masks become dicts with the name of their class, arrays become tensors, other classes their
    names, and any other object its text. Sharded tensors are gathered: then all processes call it.
    """
    if isinstance(value, Tensor):
        value = value.full_tensor() if hasattr(value, 'full_tensor') else value
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: pack(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        items = [pack(item) for item in value]
        return items if isinstance(value, list) else tuple(items) if isinstance(value, tuple) else set(items)
    if value is None or type(value) in (bool, int, float, str):
        return value
    name = f'{type(value).__module__}.{type(value).__qualname__}'
    if name in _sample_classes():
        return {CLASS: name, **pack(vars(value))}
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biuf':
        return {ARRAY: torch.from_numpy(value.copy())}  # torch does not read an empty array
    if isinstance(value, np.number | np.bool_):
        return value.item()
    return value.__name__ if isinstance(value, type) else str(value)


def unpack(value: Any, device: torch.device | str) -> Any:
    """What :func:`pack` was given, with the tensors on ``device``.

    Raises:
        CheckpointError: A class is none of samples, boxes or masks, or its library is not loaded.
    """
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, list | tuple):
        return type(value)(unpack(item, device) for item in value)
    if not isinstance(value, dict):
        return value
    if ARRAY in value:
        return value[ARRAY].numpy()
    content = {key: unpack(item, device) for key, item in value.items() if key != CLASS}
    if CLASS not in value:
        return content
    kind = _sample_classes().get(value[CLASS])
    if kind is None:
        raise CheckpointError(f'the batch holds a {value[CLASS]}, which is no known kind of sample, boxes or masks')
    sample = kind.__new__(kind)
    vars(sample).update(content)
    return sample


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes ``nonfinite_N.pth``, whole. Of the others in its folder the newest stay.

    Raises:
        SettingError, RuntimeError: The disk is full, as :func:`whole_file` or torch says it.
    """
    with whole_file(path) as part:
        torch.save(content, part)
    for old in sorted(path.parent.glob('nonfinite_*.pth'), key=os.path.getmtime)[:-KEPT]:
        old.unlink()
