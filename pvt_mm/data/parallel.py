"""Work on many files, by one process for each core."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import cv2
from rich.progress import Progress

T = TypeVar('T')
CHUNK = 16  # files that a process gets at a time
PATIENCE = 2  # seconds without a progress bar


def in_parallel(function: Callable[[Sequence], T], items: Sequence, what: str) -> Iterator[T]:
    """Calls ``function`` with chunks of ``items`` in processes of their own; the results come in order.

    Args:
        function: Of a module, so that it can be sent to a process.
        items: Can be sent as well.
        what: What is done, for the progress bar, which is shown on a terminal after two seconds.
    """
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    start, progress = time.monotonic(), Progress(transient=True)
    task = progress.add_task(what, total=len(items))
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, initializer=cv2.setNumThreads, initargs=(0,)) as pool:
        try:
            for chunk, result in zip(chunks, pool.map(function, chunks)):
                yield result
                progress.advance(task, len(chunk))
                if progress.console.is_interactive and time.monotonic() - start > PATIENCE:
                    progress.start()
        finally:
            if progress.live.is_started:
                progress.stop()
            pool.shutdown(cancel_futures=True)
