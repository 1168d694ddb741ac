"""Training that is told to end: it saves a checkpoint first."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from .saving import CheckpointHook, has_updated

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# sysexits.h: "temporary failure; the user is invited to retry", which is to resume
EX_TEMPFAIL = 75
# torchrun hands a Ctrl-C on to processes that the terminal has told already: within this time they are one.
SAME = 1.0  # second


class Stopped(SystemExit):
    """Training ended on a signal, with a checkpoint. The exit code is 75, or 130 for SIGINT."""


@HOOKS.register_module('PVTStopHook')
class StopHook(Hook):
    """On SIGTERM, SIGUSR1 or SIGINT saves a checkpoint and ends training; a second SIGINT ends it at once.

    The checkpoint is saved after the iteration in which the signal comes, or, where gradients are accumulated, after
    the next update; all processes agree. A validation ends at its next iteration.

    Raises:
        Stopped: Training ended so.
        KeyboardInterrupt: At the second SIGINT.
    """

    priority = 'LOWEST'  # when the other hooks are through with the iteration

    def __init__(self) -> None:
        self._listens = False
        self._received = 0
        self._interrupted = None
        self._val_length = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Receives the signals while the body runs, if this is the main thread: others get none."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._listens, self._pid = True, os.getpid()
        # A job in the background of a script ignores SIGINT: so it stays.
        before = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
        for number in before:
            signal.signal(number, self._receive)
        try:
            yield
        finally:
            self._listens = False
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            return  # a worker that has just been forked
        now = time.monotonic()
        if number == signal.SIGINT:
            if self._interrupted is not None and now - self._interrupted > SAME:
                raise KeyboardInterrupt
            if self._interrupted is None:
                self._interrupted = now
        if not self._received:
            self._received = number
            again = '; press Ctrl-C again to leave at once' if number == signal.SIGINT else ''
            # not through the log, whose lock the interrupted code may hold
            os.write(2, f'\n{signal.Signals(number).name}: saving a checkpoint, then training ends{again}\n'.encode())

    def _agreed(self) -> int:
        """The signal that any process received, or 0.

        It costs one number among processes that have just exchanged all gradients, and mmengine's log waits for the GPU
        in each iteration as it is.
        """
        received = torch.tensor(self._received)
        all_reduce(received, 'max')
        return int(received)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if self._listens and has_updated(runner.optim_wrapper) and (number := self._agreed()):
            self._stop(runner, runner.iter + 1, number)

    def before_val_epoch(self, runner: Runner) -> None:
        if self._listens:
            length = torch.tensor(len(runner.val_dataloader))
            all_reduce(length, 'min')  # past the end of the shortest nobody would answer
            self._val_length = int(length)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self._listens and batch_idx < self._val_length and (number := self._agreed()):
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):
                    hook.after_val_epoch(runner)  # the model has the averaged weights during validation
            self._stop(runner, runner.iter, number)

    def _stop(self, runner: Runner, iteration: int, number: int) -> None:
        hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        if hook is not None:
            hook.save_extra(runner, iteration)
        saved = f'{hook.last_ckpt} is saved, go on with --resume' if hook and hook.last_ckpt else 'nothing is saved'
        runner.logger.warning(f'{signal.Signals(number).name}: training ended after {iteration} iterations; {saved}')
        raise Stopped(130 if number == signal.SIGINT else EX_TEMPFAIL)


def init_worker(init: Callable[[int], None] | None, worker_id: int) -> None:
    """Prepares a worker of a data loader: of the signals of its group it hears only the end that its parent sends.

    Ctrl-C, Slurm and others send a signal to every process of a run, and a worker that dies takes the run along.

    Args:
        init: The loader's own ``worker_init_fn``, called then.
        worker_id: The worker's number.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if init is not None:
        init(worker_id)


def _end_with_parent() -> None:
    # A handler is not told who sent the signal.
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)
