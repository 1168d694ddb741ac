"""Losses, gradients and weights that are not finite."""

import math
from collections.abc import Callable
from pathlib import Path
from traceback import format_exception_only
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, broadcast_object_list, get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, ZeroRedundancyOptimizer
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from ..errors import SettingError, StepError, TrainingError
from ..weights.loading import unwrap
from .step import Step, check_savable, image_names, loss_terms, pack, write
from .workers import NO_MEMORY

SKIP = 10  # batches in a row
# Updates in a row that a gradient scaler of mixed precision may leave out: by then it halved 65536 to less than 1e-4.
SCALER = 30
REMEDY = (
    'Look at the images named, or go on from the last checkpoint (--resume) with a smaller learning rate; '
    "nonfinite='skip' leaves such batches out"
)
LESS = 'A smaller train_dataloader.batch_size, smaller images, --amp or model.backbone.with_cp=True need less'


def skipped_in_a_row(setting: str | dict) -> int:
    """How many batches in a row the setting ``nonfinite`` leaves out: of 'stop' none, of 'skip' 10.

    Raises:
        SettingError: It is neither, nor ``dict(skip=N)``.
    """
    number = dict(stop=0, skip=SKIP).get(setting) if isinstance(setting, str) else setting.get('skip')
    if type(number) is not int or number < 0 or isinstance(setting, dict) and len(setting) > 1:
        raise SettingError(f"nonfinite={setting!r} is no setting: it is 'stop', 'skip' or dict(skip=N)")
    return number


@HOOKS.register_module('PVTNonFiniteHook')
class NonFiniteHook(Hook):
    """Stops training at the first loss or gradient that is not finite, before the optimizer changes anything.

    :class:`pvt_mm.Runner` has it in every training (``nonfinite`` in the config); another runner takes it in
    ``custom_hooks``. All processes stop together, with a :class:`pvt_mm.errors.TrainingError` that names the iteration,
    the images, the terms of the loss, and the module or parameter where the first such value arose. The work dir gets
    ``nonfinite_<iteration>.pth``, from which ``pvt-mm replay`` runs the step again.

    Gradients that overflow in mixed precision are left to its scaler, unless it leaves out 30 updates in a row.

    Args:
        skip: The most batches in a row that are left out, each with a warning, before training stops.
    """

    priority = 'VERY_HIGH'  # before weights are averaged (EMA) or saved

    def __init__(self, skip: int = 0) -> None:
        self.skip = skip
        self.skipped = 0  # batches in a row
        self.left_out = 0  # updates in a row, by the scaler
        self._step = self._losses = None
        self._checked = self._runs_again = False
        self._handles = []

    def before_train(self, runner: Runner) -> None:
        wrapper, model = runner.optim_wrapper, unwrap(runner.model)
        if not isinstance(wrapper, OptimWrapper):
            print_log('PVTNonFiniteHook watches no training with several optimizers', 'current', 30)
            return
        # The forward pass changes some, as the statistics of BN.
        self._buffers = list(model.buffers())
        self._copies = [buffer.clone() for buffer in self._buffers]

        # Functions, not methods: a copy of the model shall not copy the hook.
        def before_forward(_, args: tuple, kwargs: dict[str, Any]) -> None:
            if kwargs.get('mode') == 'loss':
                self._step = Step.of(model, args, kwargs)
                _copy(self._buffers, self._copies)

        def after_forward(_, args: tuple, kwargs: dict[str, Any], output: dict) -> None:
            if kwargs.get('mode') == 'loss':
                self._losses = output

        def before_update(optimizer: torch.optim.Optimizer, *_) -> None:
            if not getattr(optimizer, 'found_inf', 0):  # else the scaler leaves this update out
                self._check(runner, _norm_before_update(wrapper))
                self.left_out = 0

        self._handles = [
            model.register_forward_pre_hook(before_forward, with_kwargs=True),
            model.register_forward_hook(after_forward, with_kwargs=True),
            wrapper.optimizer.register_step_pre_hook(before_update),
        ]
        if self.skip and hasattr(model, 'loss'):
            self._handles.append(_NaNForErrors(model, lambda: self._provoked_error(runner)))

    def _provoked_error(self, runner: Runner) -> bool:
        """Whether an error of the forward pass comes from values that are not finite, as that of DETR's matcher."""
        known = self._step is not None and not self._runs_again and not _is_sharded(runner.model)
        return known and self._run_again(runner)['cause'] is not None

    def after_train(self, runner: Runner) -> None:
        while self._handles:
            self._handles.pop().remove()

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        if self._handles and not self._checked:  # no update: gradients are gathered, or the scaler left it out
            wrapper = runner.optim_wrapper
            if not hasattr(wrapper, 'loss_scaler'):
                self._check(runner, _norm_of(wrapper))
            elif not wrapper.should_update():
                self._check(runner, 0)
            else:
                self.left_out += 1
                self._check(runner, 0 if self.left_out < SCALER else math.inf)
        self._checked = False
        self._step = self._losses = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Raises TrainingError in place of writing weights, or an optimizer's state, that are not finite."""
        check_savable({key: checkpoint.get(key) for key in ('state_dict', 'optimizer')})

    def _check(self, runner: Runner, norm: float | Tensor) -> None:
        """Ends the run, or leaves the batch out, if the loss or ``norm`` of the gradients is not finite anywhere."""
        self._checked = True
        finite = torch.as_tensor(norm, device=next(runner.model.parameters()).device).isfinite()
        if self._losses is not None:
            with torch.no_grad():
                finite = finite & unwrap(runner.model).parse_losses(self._losses)[0].isfinite()
        finite = finite.float()
        all_reduce(finite, 'min')  # on one process alone an update, or an error, would leave the others waiting
        if finite:
            self.skipped = 0
            return
        text = self._describe(runner)
        runner.optim_wrapper.zero_grad()  # an update without gradients changes nothing
        self.skipped += 1
        if self.skipped > self.skip:
            raise TrainingError(f'{text}. {REMEDY}')
        skipped = runner.message_hub.get_info('nonfinite_skipped', 0) + 1
        runner.message_hub.update_info('nonfinite_skipped', skipped)
        runner.logger.warning(f'{text}; skipped: {self.skipped} in a row (at most {self.skip}), {skipped} in all')

    def _describe(self, runner: Runner) -> str:
        """What went wrong, of the first process where it did; that process writes the step into the work dir."""
        own = self._run_again(runner)
        everyone = all_gather_object(own)
        # A loss first: the gradients of a sharded model hold those of all processes.
        faulty = min(range(len(everyone)), key=lambda i: (everyone[i]['finite_loss'], everyone[i]['cause'] is None))
        content = self._content(runner, own)  # by all: gathers what is sharded
        place = [self._write(runner, content) if get_rank() == faulty else None]
        broadcast_object_list(place, faulty)
        return f'{everyone[faulty]["text"]}; no weight was changed; {place[0]}'

    def explain(self, runner: Runner, error: Exception) -> None:
        """Raises StepError if ``error`` ended a step for want of memory, or in a forward pass that is not finite."""
        if self._step is None:
            return  # not in a step
        reason = format_exception_only(error)[0].partition('\n')[0]
        if NO_MEMORY.search(reason):
            images = ', '.join(image_names([self._step.args, self._step.kwargs])) or 'unknown'
            raise StepError(
                f'iteration {runner.iter + 1} needs more memory ({reason}); images: {images}. {LESS}'
            ) from error
        if self._losses is not None:
            return  # past the forward pass
        if _is_sharded(runner.model):
            return  # it cannot be run again by this process alone
        facts = self._run_again(runner)
        if facts['cause']:
            place = self._write(runner, self._content(runner, facts))
            raise StepError(f'{facts["text"]}; no weight was changed; {place}. {REMEDY}') from error

    def _run_again(self, runner: Runner) -> dict[str, Any]:
        """Runs the step again on this process, and says what is wrong with it."""
        model = unwrap(runner.model)
        losses = {} if self._losses is None else loss_terms(model, self._losses)[1]
        runner.optim_wrapper.zero_grad()
        _copy(self._copies, self._buffers)
        self._runs_again = True
        found = self._step.run(model)
        self._runs_again = False
        _copy(self._copies, self._buffers)
        runner.optim_wrapper.zero_grad()

        images = image_names([self._step.args, self._step.kwargs])
        process = f' on process {get_rank()}' if runner.world_size > 1 else ''
        terms = ', '.join(f'{name} {value:.6g}' for name, value in losses.items())
        text = (
            f'iteration {runner.iter + 1}{process} is not finite: {found.error or terms}; '
            f'images: {", ".join(images) or "unknown"}; {found.cause or "run again, all of it is finite"}'
        )
        finite_loss = all(map(math.isfinite, losses.values()))
        return dict(text=text, losses=losses, images=images, cause=found.cause, finite_loss=finite_loss)

    def _content(self, runner: Runner, facts: dict[str, Any]) -> dict[str, Any]:
        step = self._step
        return pack(
            dict(
                meta=dict(iter=runner.iter + 1, epoch=runner.epoch + 1, rank=get_rank(), **facts),
                config=runner.cfg.to_dict(),
                args=step.args,
                kwargs=step.kwargs,
                random=step.random,
                autocast=step.autocast,
                state_dict=unwrap(runner.model).state_dict(),
                optimizer=_state_of(runner.optim_wrapper),
            )
        )

    def _write(self, runner: Runner, content: dict[str, Any]) -> str:
        path = Path(runner.work_dir) / f'nonfinite_{runner.iter + 1}.pth'
        try:
            write(path, content)
        except (SettingError, RuntimeError) as error:  # torch's own is a RuntimeError
            return f'{path} could not be written ({str(error).partition(chr(10))[0]})'
        return f'pvt-mm replay {path} runs the step again'


class _NaNForErrors:
    """A handle on a model whose ``loss`` gives NaN where it raised an error, so that all processes leave the batch out.

    Args:
        model: A detector, segmentor or classifier.
        provoked: Whether an error just raised comes from values that are not finite.
    """

    def __init__(self, model: BaseModel, provoked: Callable[[], bool]) -> None:
        self.model, loss = model, model.loss

        def loss_or_nan(*args, **kwargs) -> dict[str, Tensor]:
            try:
                return loss(*args, **kwargs)
            except Exception:
                if not provoked():
                    raise
                # of every parameter: DDP waits for the gradient of each
                return dict(loss=math.nan * sum(p.sum() for p in model.parameters() if p.requires_grad))

        model.loss = loss_or_nan

    def remove(self) -> None:
        del self.model.loss


def _is_sharded(model: nn.Module) -> bool:
    return any(hasattr(parameter, 'full_tensor') for parameter in model.parameters())


def _copy(values: list[Tensor], targets: list[Tensor]) -> None:
    if values:
        torch._foreach_copy_(targets, values)


def _state_of(wrapper: OptimWrapper) -> dict[str, Any]:
    """The optimizer's state dict; of ZeRO, where each process has a part of the state, the settings alone."""
    if not isinstance(wrapper.optimizer, ZeroRedundancyOptimizer):
        return wrapper.state_dict()
    groups = [{key: value for key, value in group.items() if key != 'params'} for group in wrapper.param_groups]
    return dict(state={}, param_groups=groups)


def _norm_of(wrapper: OptimWrapper) -> Tensor:
    """A norm of the gradients, which is finite exactly if all of them are."""
    parameters = [parameter for group in wrapper.param_groups for parameter in group['params']]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    local = [gradient.to_local() if hasattr(gradient, 'to_local') else gradient for gradient in gradients]
    norm = get_total_norm(local)
    return norm if norm.isfinite() else get_total_norm(local, math.inf)  # squares overflow; this norm is slow on CPU


def _norm_before_update(wrapper: OptimWrapper) -> float | Tensor:
    """The norm by which the wrapper has just clipped the gradients, or else that of :func:`_norm_of`."""
    if wrapper.clip_grad_kwargs and wrapper.grad_name == 'grad_norm':
        return wrapper.message_hub.get_scalar('train/grad_norm').current()
    return _norm_of(wrapper)
