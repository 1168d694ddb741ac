"""Workers of the data loader that die: killed, out of memory, out of shared memory."""

import multiprocessing
import os
import re
import signal
from collections.abc import Callable

import cv2
import pytest
from mmengine.registry import TRANSFORMS

from pvt_mm.engine.unreadable import GuardedLoading, Skipped
from pvt_mm.engine.workers import NO_SHARED_MEMORY, Notes, named_workers
from pvt_mm.errors import WorkerError
from tests.engine.test_unreadable import TWO_EPOCHS, detection, make_runner, segmentation, write


@TRANSFORMS.register_module()
class DyingTransform:
    """Ends the worker, or raises, at the image ``3.jpg``."""

    def __init__(self, fault: int | str):
        self.fault = fault

    def __call__(self, results):
        if results['img_path'].endswith('3.jpg'):
            if self.fault == 'memory':
                raise MemoryError
            os.kill(os.getpid(), self.fault)
        return results


def line_of(function: Callable[[], None]) -> str:
    """The message of the WorkerError that ``function`` raises.

    In a process of its own: torch raises the error from a signal, wherever the process then is.
    """
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        try:
            function()
        except WorkerError as error:
            sender.send(str(error))
            os._exit(0)  # here: past this block torch waits for the other workers

    process = context.Process(target=run)
    process.start()
    sender.close()
    process.join(60)
    return receiver.recv()


@pytest.mark.parametrize(
    'workers, fault, said',
    [
        (1, signal.SIGKILL, 'was killed by the signal Killed; .* Most likely the memory is full, or /dev/shm: a smal'),
        (2, signal.SIGKILL, 'was killed by the signal Killed; .* Most likely the memory is full, or /dev/shm: a smal'),
        (2, signal.SIGBUS, 'was killed by the signal Bus error; .* --shm-size=8g, or a smaller train_dataloader.num_'),
        (2, signal.SIGSEGV, 'was killed by the signal Segmentation fault; .* check_data CONFIG --decode all'),
        (2, 'memory', 'found no memory left; .* a smaller train_dataloader.num_workers'),
    ],
)
def test_a_worker_that_dies_in_training_names_its_file(tmp_path, workers, fault, said):
    root = write(tmp_path / 'data')
    dataset = detection(root, dict(type='mmengine.DyingTransform', fault=fault))
    text = line_of(lambda: make_runner(tmp_path, dataset, 'mmdet', workers, TWO_EPOCHS).train())
    file = f'the last file that it began is {root}/images/3.jpg. '
    assert re.match(f'worker {workers - 1} of {workers} of train_dataloader {said}', text), text
    assert file in text and '\n' not in text


def test_a_worker_that_dies_in_an_exact_run_names_its_file(tmp_path):
    root = write(tmp_path / 'data')
    dataset = detection(root, dict(type='mmengine.DyingTransform', fault=signal.SIGKILL))
    settings = dict(train_cfg=dict(by_epoch=False, max_iters=9), exact_resume=True)
    text = line_of(lambda: make_runner(tmp_path, dataset, 'mmdet', 1, **settings).train())
    assert (
        f'worker 0 of 1 of train_dataloader was killed by the signal Killed; the last file that it began is {root}/im'
        in text
    )


def test_a_worker_that_dies_in_validation_names_its_file(tmp_path):
    root = write(tmp_path / 'data')
    dataset = segmentation(root, dict(type='mmengine.DyingTransform', fault=signal.SIGKILL))

    def validate() -> None:
        run = make_runner(tmp_path, None, 'mmseg', 2, val=dataset)
        run._has_loaded = True
        run.val()

    assert re.match(f'worker 1 of 2 of val_dataloader was killed .* {root}/maps/3.png. Most', line_of(validate))


def test_a_want_of_memory_is_no_fault_of_the_file():
    def load(results):
        raise cv2.error('(-4:Insufficient memory) Failed to allocate 10800000000 bytes')

    guarded = GuardedLoading(load, 'img_path', (cv2.error,), Notes('train_dataloader', 0), Skipped())
    with pytest.raises(cv2.error):
        guarded(dict(img_path='a.jpg'))


@pytest.mark.parametrize(
    'text',
    [
        'unable to write to file </torch_12_345_0>: No space left on device (28)',
        'unable to allocate shared memory(shm) for file </torch_12_345_0>: Success (0)',
        'unable to open shared memory object </torch_12_345_0> in read-write mode: No space left on device (28)',
    ],
)
def test_torchs_words_for_full_shared_memory_are_known(text):
    assert NO_SHARED_MEMORY.search(text)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match='^mat1 and mat2'):
        with named_workers([Notes('train_dataloader', 1)]):
            raise RuntimeError('mat1 and mat2 shapes cannot be multiplied')


def test_a_worker_that_dies_before_its_first_file_has_no_name():
    with pytest.raises(WorkerError, match='^a data loader worker was killed by the signal Killed. Most likely'):
        with named_workers([Notes('train_dataloader', 1)]):
            raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. ')
