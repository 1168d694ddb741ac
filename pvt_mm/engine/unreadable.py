"""Images and label maps that cannot be read while a model is trained or tested."""

import logging
import zlib
from collections.abc import Callable

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from PIL import Image
from torch.utils.data import Dataset, get_worker_info

from ..errors import DataError
from .workers import NO_MEMORY, Notes

# what Pillow raises at a damaged file
DAMAGED = (OSError, SyntaxError, Image.DecompressionBombError)


class UnreadableError(DataError):
    """An image or label map cannot be read. The message is one line, also of one that was raised in a worker."""

    on_one_process = True

    def __init__(self, message: str) -> None:
        # The data loader raises a worker's error again, of this class, with the worker's traceback as the message.
        super().__init__(message.splitlines()[-1].removeprefix(f'{__name__}.{type(self).__name__}: '))


class Skipped:
    """Counts files that are skipped, in memory that the workers of a data loader share."""

    def __init__(self) -> None:
        # A place for each worker, and one for each name: none is written to by two at once.
        self._counts = torch.zeros(256, dtype=torch.int64).share_memory_()
        self._named = torch.zeros(2**20, dtype=torch.bool).share_memory_()

    def add(self, path: str, reason: str) -> None:
        """Counts a file, and logs its name the first time."""
        worker = get_worker_info()
        self._counts[(worker.id + 1) % len(self._counts) if worker else 0] += 1
        place = zlib.crc32(path.encode(errors='replace')) % len(self._named)
        if not self._named[place]:
            self._named[place] = True
            # Of all processes but the first mmengine shows errors alone.
            level = logging.WARNING if is_main_process() else logging.ERROR
            print_log(f'{path} cannot be read ({reason}): skipped', logger='current', level=level)

    def total(self) -> int:
        """How many files were skipped by all processes of the run; a file counts each time."""
        total = self._counts.sum()
        all_reduce(total)
        return int(total)


class GuardedLoading:
    """A transform that loads a file, with an error that names it.

    Args:
        transform: Loads the file that ``key`` of its input names.
        errors: What it raises where the file cannot be read, and at nothing else.
        notes: Gets the file before it is loaded.
        skipped: Counts the files; the result is None then, in whose place the dataset takes another sample. Without it,
            a file that cannot be read raises :class:`UnreadableError`.
    """

    def __init__(
        self,
        transform: Callable[[dict], dict | None],
        key: str,
        errors: tuple[type[Exception], ...],
        notes: Notes,
        skipped: Skipped | None,
    ) -> None:
        self.transform, self.key, self.errors, self.notes, self.skipped = transform, key, errors, notes, skipped

    def __call__(self, results: dict) -> dict | None:
        self.notes.write(results[self.key])
        try:
            return self.transform(results)
        except self.errors as error:
            if NO_MEMORY.search(str(error)):
                raise  # the file is whole
            path, reason = results[self.key], _reason(error)
            if self.skipped is not None:
                self.skipped.add(path, reason)
                return None
            raise UnreadableError(
                f'{path} cannot be read ({reason}): pvt-mm check_data CONFIG --decode all names all such files; '
                f"bad_data='skip' trains without them"
            ) from error

    def __repr__(self) -> str:
        return repr(self.transform)


def _reason(error: Exception) -> str:
    if not isinstance(error, DAMAGED):
        return 'it does not decode'
    return getattr(error, 'strerror', None) or str(error).partition(' <')[0]  # Pillow adds <_io.BytesIO object ...>


def guard_loading(dataset: Dataset, notes: Notes, skipped: Skipped | None = None) -> None:
    """Puts :class:`GuardedLoading` around every transform of a dataset that loads an image or label map.

    Args:
        dataset: The dataset, or a wrapper of others. Its pipelines are changed.
        notes: As in :class:`GuardedLoading`.
        skipped: As in :class:`GuardedLoading`.
    """

    import cv2
    from mmcv.transforms import LoadAnnotations, LoadImageFromFile

    not_decoded = (AssertionError, cv2.error)  # mmcv's and OpenCV's

    def guard(part) -> None:
        if isinstance(part, list):
            for i, item in enumerate(part):
                if isinstance(item, LoadImageFromFile):
                    part[i] = GuardedLoading(item, 'img_path', (*DAMAGED, *not_decoded), notes, skipped)
                elif isinstance(item, LoadAnnotations) and item.with_seg:
                    part[i] = GuardedLoading(item, 'seg_map_path', DAMAGED, notes, skipped)
                else:
                    guard(item)
        else:
            for name in ('dataset', 'datasets', 'pipeline', 'transforms'):
                if hasattr(part, name):
                    guard(getattr(part, name))

    guard(dataset)


class SkippedImagesHook(Hook):
    """Logs how many images were skipped at the end of each epoch and before each validation.

    The total is the message hub's ``skipped_images`` as well, from where checkpoints take it. A resumed run counts on;
    what workers had loaded beyond the checkpoint counts twice.
    """

    def __init__(self, skipped: Skipped) -> None:
        self.skipped = skipped
        self.earlier = self.said = 0

    def before_train(self, runner: Runner) -> None:
        self.earlier = self.said = runner.message_hub.get_info('skipped_images', 0)

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        runner.message_hub.update_info('skipped_images', self.earlier + self.skipped.total())

    def after_train_epoch(self, runner: Runner) -> None:
        total = runner.message_hub.get_info('skipped_images', 0)
        if total > self.said:
            runner.logger.warning(f"bad_data='skip': {total} unreadable samples so far, each replaced by another")
        self.said = total

    def before_val_epoch(self, runner: Runner) -> None:
        self.after_train_epoch(runner)  # training by iterations has no other end of an epoch
