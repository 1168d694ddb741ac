"""Workers of a data loader that are killed, or have no memory left."""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue

import torch
from torch.utils.data import get_worker_info

from ..errors import WorkerError

LENGTH = 1024  # bytes of a path that are kept, its end
DIED = re.compile(r'DataLoader worker \(pid(?:\(s\))? (\d+).*?\) (?:is killed by signal: (.*?)\. |(exited [^.]*))')
CAUGHT = re.compile(r'Caught \w+ in DataLoader worker process (\d+)\.')
NO_MEMORY = re.compile(r"MemoryError|Insufficient memory|can't allocate memory|Cannot allocate memory")
NO_SHARED_MEMORY = re.compile(r'Bus error|unable to (allocate|open|write|mmap|resize) .*(shared memory|/torch_)')


class Notes:
    """The file that each worker of a data loader is on, in memory that they share.

    Args:
        loader: What messages call the loader, its key in the config.
        workers: How many it has.
    """

    def __init__(self, loader: str, workers: int) -> None:
        self.loader, self.workers = loader, workers
        self._who = torch.zeros(workers, 2, dtype=torch.int64).share_memory_()  # process, and when it wrote
        self._paths = torch.zeros(workers, LENGTH, dtype=torch.uint8).share_memory_()

    def write(self, path: str) -> None:
        """Notes, in a worker, the file that it begins to load."""
        worker = get_worker_info()
        if worker:
            Queue._on_queue_feeder_error = staticmethod(_end_worker)
            self._paths[worker.id] = torch.frombuffer(
                bytearray(os.fsencode(path)[-LENGTH:].ljust(LENGTH, b'\0')), dtype=torch.uint8
            )
            self._who[worker.id] = torch.tensor([os.getpid(), time.monotonic_ns()])

    def read(self, worker: int) -> tuple[int, int, str]:
        """The process of a worker, when it wrote (ns), and the file that it was on."""
        process, when = self._who[worker].tolist()
        return process, when, os.fsdecode(self._paths[worker].numpy().tobytes().rstrip(b'\0'))


def _end_worker(error: Exception, item: object) -> None:
    """Ends a worker that cannot send a batch. Python's own handler drops it, and the run would wait for it for ever."""
    print(f'data loader worker: {error}', file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGBUS if NO_SHARED_MEMORY.search(str(error)) else signal.SIGABRT)


@contextmanager
def named_workers(notes: list[Notes]) -> Iterator[None]:
    """Raises :class:`pvt_mm.errors.WorkerError` in place of the data loader's error about a worker.

    Args:
        notes: Those of each loader that the block runs.
    """
    try:
        yield
    except Exception as error:  # that of a worker's signal is raised wherever this process was
        if text := _explain(error, notes):
            raise WorkerError(text) from error
        raise


def _explain(error: Exception, notes: list[Notes]) -> str | None:
    text = f'{error.__cause__ or ""} {error}'  # only the cause, where there is one, tells the signal
    rows = [(note, worker, *note.read(worker)) for note in notes for worker in range(note.workers)]
    if died := DIED.search(text):
        found = [row for row in rows if row[2] == int(died[1])]
        what = f'was killed by the signal {died[2]}' if died[2] else died[3]
    elif (caught := CAUGHT.search(text)) and (NO_MEMORY.search(text) or NO_SHARED_MEMORY.search(text)):
        found = [row for row in rows if row[1] == int(caught[1]) and row[2]]
        what = 'found no memory left'
    else:
        return None
    where = f'a data loader worker {what}'
    loader = 'train_dataloader'
    if found:
        note, worker, _, _, path = max(found, key=lambda row: row[3])
        loader = note.loader
        where = f'worker {worker} of {note.workers} of {loader} {what}; the last file that it began is {path}'
    if NO_SHARED_MEMORY.search(text):
        remedy = f'/dev/shm is too small: docker run --shm-size=8g, or a smaller {loader}.num_workers'
    elif died and died[2] not in (None, 'Killed'):
        remedy = 'pvt-mm check_data CONFIG --decode all reads each file'
    else:
        remedy = (
            f'Most likely the memory is full, or /dev/shm: a smaller {loader}.num_workers, smaller images, more '
            'memory, or docker run --shm-size=8g'
        )
    return f'{where}. {remedy}'
