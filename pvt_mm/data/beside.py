"""Checks large files of annotations while the run builds its datasets from them, in a process of its own."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection

from mmengine.config import Config
from mmengine.hooks import Hook

from ..errors import DataError
from .agreement import check_agreement, find_datasets
from .annotations import is_large


class AgreementHook(Hook):
    """Waits before a run begins for the process that checks its annotations.

    Args:
        cfg: The config.
        parts: The dataloaders that the run uses, as the config names them.
        log: Receives the lines of the check.
    """

    priority = 'VERY_HIGH'

    def __init__(self, cfg: Config, parts: tuple[str, ...], log: Callable[[str], None]):
        self.log, self.done = log, False
        context = get_context('fork')  # it has all imported
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=_check, args=(sender, cfg, parts), daemon=True)
        self.process.start()
        sender.close()

    def before_run(self, runner) -> None:
        self.wait()

    def wait(self) -> None:
        """Returns at once when it is called again.

        Raises:
            DataError, SettingError: As :func:`check_agreement`.
        """
        if self.done:
            return
        self.done = True
        lines, error = [], None
        with suppress(EOFError):  # it was killed
            lines, error = self.receiver.recv()
        self.process.join()
        if self.process.exitcode:
            error = DataError(
                f'the process that checks the annotations ended with code {self.process.exitcode}; -9 is most likely '
                'a lack of memory. pvt-mm check_data checks them alone'
            )
        for line in lines:
            self.log(line)
        if error:
            raise error


def _check(sender: Connection, cfg: Config, parts: tuple[str, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which takes this process along
    lines, error = [], None
    try:
        check_agreement(cfg, *parts, log=lines.append)
    except Exception as found:
        error = found
    sender.send((lines, error))


@contextmanager
def agreement_checked(cfg: Config, *parts: str, log: Callable[[str], None] = print) -> Iterator[AgreementHook | None]:
    """Checks as :func:`check_agreement` does, before the block; large files while it runs.

    Reading COCO's train2017 takes the check as long as it takes mmdet, and neither needs the other. The block may build
    a runner, and registers the hook that it gets: no run begins on what is not checked. The block's end waits as well,
    and where both have an error, that of the data is raised.

    Raises:
        DataError, SettingError: As :func:`check_agreement`.
    """
    # bad_data='skip' changes the config; the first process checks for all; elsewhere than on Linux no process is forked
    beside = cfg.get('bad_data', 'stop') == 'stop' and not int(os.environ.get('LOCAL_RANK', 0))
    beside = beside and sys.platform == 'linux'
    if not beside or not any(is_large(found.dataset) for found in find_datasets(cfg, *parts)):
        check_agreement(cfg, *parts, log=log)
        yield None
        return
    hook = AgreementHook(cfg, parts, log)
    try:
        yield hook
    except Exception:
        hook.wait()
        raise
    hook.wait()
