"""Files of a run that are whole or not there: checkpoints, the log and the scalars."""

import contextlib
import errno
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.dist import all_reduce, broadcast, is_main_process
from mmengine.fileio import dump, get_file_backend
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend, Visualizer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..errors import SettingError
from ..weights.reading import share_folder
from .sharding import distribute

# A disk that takes no more; EFBIG is a limit on the size of a file (ulimit -f).
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)
SECONDS = dict(s=1, min=60, h=3600)
EXTRAS = 2  # how many of the checkpoints of save_every and of signals are kept
PARTS = '.*.part'


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Writes a file that is whole as soon as it has its name, also when the machine loses power.

    The body writes to the path that it is given, which lies beside. A body that fails leaves nothing of it.

    Raises:
        SettingError: The disk is full, or the folder cannot be written to.
    """
    part = path.with_name(f'.{path.name}.part')
    try:
        yield part
        _flush(part)
        part.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise SettingError(f'{path} was not written ({error.strerror or error}): {way_out(path)}') from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot do it for a folder
            raise
    finally:
        os.close(handle)


def way_out(path: str | Path) -> str:
    """What to do when a file of a run cannot be written."""
    place = existing(path)
    return (
        f'{place} has {shutil.disk_usage(place).free / 1e9:.2f} GB free; make room, or keep fewer checkpoints '
        '(default_hooks.checkpoint.max_keep_ckpts), then go on with --resume'
    )


def existing(folder: str | Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(place for place in (Path(folder).absolute(), *Path(folder).absolute().parents) if place.is_dir())


def is_local(folder: str, backend_args: dict | None = None) -> bool:
    """Whether mmengine writes to a folder as to a disk of this machine."""
    return isinstance(get_file_backend(folder, backend_args=backend_args), LocalBackend)


_failed = set()  # files that could not be written to when it was last tried


def append(path: str, text: str) -> None:
    """Appends all of a text to a file, or nothing; then a line on the screen says so, and the run goes on."""
    try:
        with open(path, 'ab', buffering=0) as file:
            size, data = file.seek(0, os.SEEK_END), text.encode()
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                if file.tell() > size:
                    file.truncate(size)
                raise
    except OSError as error:
        if path not in _failed:
            with contextlib.suppress(OSError):  # the screen may be a file on the same disk
                print(f'{path} cannot be written to ({error.strerror}): training goes on without it', file=sys.stderr)
        _failed.add(path)
    else:
        _failed.discard(path)


class AppendedFile:
    """A stream of text to :func:`append`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def write(self, text: str) -> None:
        append(self.path, text)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def keep_log_whole(logger: logging.Logger) -> None:
    """Makes a logger write each line whole or not at all to its files."""
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler) and not isinstance(handler.stream, AppendedFile):
            handler.setStream(AppendedFile(handler.baseFilename)).close()


def keep_scalars_whole(visualizer: Visualizer) -> None:
    """Makes a visualizer write each line whole or not at all to ``scalars.json``."""
    for backend in visualizer._vis_backends.values():
        if isinstance(backend, LocalVisBackend):
            backend._dump = _append_json


def _append_json(value_dict: dict, file_path: str, file_format: str) -> None:
    append(file_path, dump(value_dict, file_format=file_format) + '\n')


def period(text: str | int) -> tuple[str, float]:
    """The unit, ``'seconds'`` or ``'iterations'``, and number of ``90s``, ``15min``, ``2h`` or a number of iterations.

    Raises:
        SettingError: It is none of these.
    """
    found = re.fullmatch(r'(\d+(?:\.\d+)?)(s|min|h)|(\d+)', str(text))
    number = float(found[1] or found[3]) if found else 0
    if number <= 0:
        raise SettingError(f'save_every={text}: give a time, as 90s, 15min or 2h, or a number of iterations')
    return ('seconds', number * SECONDS[found[2]]) if found[2] else ('iterations', int(number))


def has_updated(optim_wrapper: OptimWrapper | OptimWrapperDict) -> bool:
    """Whether the last iteration ended in an update: no gradients are accumulated."""
    wrappers = optim_wrapper.values() if isinstance(optim_wrapper, OptimWrapperDict) else [optim_wrapper]
    return all(wrapper.should_update() for wrapper in wrappers)


@HOOKS.register_module('PVTCheckpointHook')
class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's hook, which removes an old checkpoint only when the new one is on the disk.

    ``Runner`` takes it where a config says ``CheckpointHook``. A checkpoint inside an epoch waits until accumulated
    gradients have led to an update. One at the end of an epoch holds them, as the mean of all processes.

    Args:
        save_every: Saves ``iter_N.pth`` as often as this too: a time, as ``'90s'``, ``'15min'`` or ``'2h'``, since the
            last checkpoint of any kind by the first process's clock, or a number of iterations. The newest two are
            kept.
        args: mmengine's.
        kwargs: mmengine's.

    Raises:
        SettingError: ``save_every`` is neither.
    """

    def __init__(self, *args, save_every: str | int | None = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.save_every = save_every and period(save_every)
        self._own_is_due = self._extra_is_due = False
        self._gradients = {}

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = list(self.keep_ckpt_ids)  # one more than are kept, while the newest is written
        self._extra_ids = list(runner.message_hub.runtime_info.get('extra_ckpt_ids', ()))
        self._saved_iter, self._saved_time = runner.iter, time.monotonic()
        if runner._resume:
            self.last_ckpt = runner._load_from
        local = is_local(self.out_dir, self.backend_args)
        if runner.cfg.get('shard_checkpoints') and not local:
            raise SettingError(f'shard_checkpoints=True writes to a folder of this machine, and {self.out_dir} is none')
        if is_main_process() and local:
            for part in [*Path(self.out_dir).glob(PARTS), *Path(runner.work_dir).glob(PARTS)]:
                part.unlink(missing_ok=True)  # a run was killed while it wrote this

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        self._own_is_due |= not self.by_epoch and (
            self.every_n_train_iters(runner, self.interval, self.save_begin)
            or self.save_last
            and self.is_last_train_iter(runner)
        )
        self._extra_is_due |= self._is_time(runner)
        if self.by_epoch and self.end_of_epoch(runner.train_dataloader, batch_idx):
            return  # the epoch's own comes, or the extra one after the next iteration
        if not (self._own_is_due or self._extra_is_due) or not has_updated(runner.optim_wrapper):
            return
        runner.logger.info(f'Saving checkpoint at {runner.iter + 1} iterations')
        if self._own_is_due:
            self._save_checkpoint(runner)
        else:
            self.save_extra(runner, runner.iter + 1)

    def _is_time(self, runner: Runner) -> bool:
        unit, number = self.save_every or ('iterations', 0)
        if unit == 'iterations':
            return self.every_n_train_iters(runner, number)
        passed = torch.tensor(time.monotonic() - self._saved_time)
        broadcast(passed)  # clocks differ, and the processes save together
        return passed.item() >= number

    def save_extra(self, runner: Runner, iteration: int) -> None:
        """Saves ``iter_N.pth``, unless this iteration's checkpoint exists; every process calls it.

        Args:
            runner: The runner.
            iteration: How many iterations were trained.
        """
        if iteration == self._saved_iter:
            return
        self._extra_ids.append(iteration)
        runner.message_hub.update_info('extra_ckpt_ids', list(self._extra_ids))
        self._write(runner, f'iter_{iteration}.pth', dict(epoch=runner.epoch, iter=iteration))
        while len(self._extra_ids) > EXTRAS:
            self._remove(self.file_backend.join_path(self.out_dir, f'iter_{self._extra_ids.pop(0)}.pth'))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if not self.by_epoch and step in self._extra_ids:  # its best score came with the validation after it
            self._extra_ids.remove(step)
        kept = self.keep_ckpt_ids if self.max_keep_ckpts > 0 else []
        if self.max_keep_ckpts > 0 and step not in kept[-1:]:
            kept.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(kept))
        self._write(runner, self.filename_tmpl.format(step), meta)
        while len(kept) > self.max_keep_ckpts > 0:
            self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(kept.pop(0))))

    def _write(self, runner: Runner, name: str, meta: dict) -> None:
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._gradients = {} if has_updated(runner.optim_wrapper) else _mean_gradients(runner.model)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._gradients = {}
        self._own_is_due = self._extra_is_due = False
        self._saved_iter, self._saved_time = meta['iter'], time.monotonic()
        if is_main_process():
            with whole_file(Path(runner.work_dir, 'last_checkpoint')) as part:
                part.write_text(self.last_ckpt)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self._gradients:
            checkpoint['gradients'] = self._gradients

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        gradients = checkpoint.get('gradients', {}) if runner._resume else {}
        for name, parameter in _module(runner.model).named_parameters():
            if name in gradients:
                parameter.grad = distribute(gradients[name].to(parameter.device), parameter)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best:
            return
        # mmengine removes the best so far before it writes the new one: it is not told of it.
        is_one = len(self.key_indicators) == 1
        paths, keys = (vars(self), ['best_ckpt_path']) if is_one else (self.best_ckpt_path_dict, self.key_indicators)
        before = {key: paths[key] for key in keys}
        paths.update(dict.fromkeys(keys))
        super()._save_best_checkpoint(runner, metrics)
        for key, path in before.items():
            if paths[key] is None:
                paths[key] = path
            elif path not in (None, paths[key]):
                self._remove(path)

    def _remove(self, path: str) -> None:
        if not is_main_process():
            return
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # another strategy's checkpoint
            self.file_backend.rmtree(path)
        shutil.rmtree(share_folder(path), ignore_errors=True)


def _module(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _mean_gradients(model: nn.Module) -> dict[str, Tensor]:
    """The accumulated gradients by parameter, as the next update takes them: the mean of all processes."""
    gradients = {}
    for name, parameter in _module(model).named_parameters():
        if isinstance(parameter.grad, DTensor):
            gradients[name] = parameter.grad.full_tensor().cpu()  # FSDP2 has averaged it
        elif parameter.grad is not None:
            mean = parameter.grad.clone()
            all_reduce(mean, 'mean')
            gradients[name] = mean.cpu()
    return gradients
