"""Training whose order and random numbers follow from the seed and the iteration alone, so that a resumed run goes on
exactly."""

import logging
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info, get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import DATA_SAMPLERS, LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner import Runner as MMEngineRunner
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

# What the seeds are for: the numbers of a sample and those of an iteration have nothing in common.
SAMPLE, ITERATION = 0, 1
VALIDATED = 'validated_iter'  # of the message hub: the iteration of the last validation
# What other hooks remember of a run, which no checkpoint of mmengine's holds.
HOOK_STATE = dict(EarlyStoppingHook=('best_score', 'wait_count'), NonFiniteHook=('skipped', 'left_out'))


def seed_cpu(*key: int) -> int:
    """Seeds the generators of Python, numpy and the CPU's of torch from some numbers; torch's seed is returned."""
    python, numpy, *parts = np.random.SeedSequence(key).generate_state(4).tolist()
    random.seed(python)
    np.random.seed(numpy)
    seed = parts[0] << 32 | parts[1]
    torch.default_generator.manual_seed(seed)
    return seed


def seed_everything(*key: int) -> None:
    """Seeds the GPUs' generators too, which takes 0.4 ms even where there are none."""
    torch.manual_seed(seed_cpu(*key))


class SeededIndex(int):
    """An index of a dataset, with the seed and the epoch of its sample, and its number where an epoch repeats it."""

    def __new__(cls, index: int, seed: int, epoch: int, repeat: int = 0) -> 'SeededIndex':
        self = super().__new__(cls, index)
        self.seed, self.epoch, self.repeat = seed, epoch, repeat
        return self

    def __reduce__(self) -> tuple:
        return SeededIndex, (int(self), self.seed, self.epoch, self.repeat)


@DATA_SAMPLERS.register_module('PVTExactBatchSampler')
class ExactBatchSampler(Sampler[list[SeededIndex]]):
    """The batches of another batch sampler, from any of them on.

    Args:
        sampler: Gives the indices.
        batch_size: Samples in a batch.
        seed: The run's seed.
        drop_last: Leave out a last batch that is not full; without ``batch_sampler`` only.
        batch_sampler: The config of the other batch sampler. Without it, a batch is the sampler's next indices.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        seed: int,
        drop_last: bool = False,
        batch_sampler: dict | None = None,
    ) -> None:
        self.sampler, self.batch_size, self.seed = sampler, batch_size, seed
        if batch_sampler is None:
            self.batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        else:
            self.batch_sampler = DATA_SAMPLERS.build(
                batch_sampler, default_args=dict(sampler=sampler, batch_size=batch_size)
            )
        self.rank, self.world_size = get_dist_info()
        # How many batches the next iteration leaves out; what is left of them where it has no more. None: all, as a
        # loop by iterations starts to load before it knows where it resumes.
        self.skip: int | None = None

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        if self.skip is None:
            return
        batches = enumerate(self.batch_sampler)
        while self.skip and next(batches, None) is not None:
            self.skip -= 1
        for number, batch in batches:
            yield [self._seeded(index, number * self.batch_size + i) for i, index in enumerate(batch)]

    def _seeded(self, index: int, position: int) -> SeededIndex:
        """An index with its epoch: the sampler's, or, as an infinite one has none, how often it went through all."""
        place = position * self.world_size + self.rank
        repeat = place % getattr(self.sampler, 'num_repeats', 1)  # mmpretrain's RepeatAugSampler, on all processes
        return SeededIndex(index, self.seed, getattr(self.sampler, 'epoch', 0) + place // self._size, repeat)

    @property
    def _size(self) -> int:
        dataset = getattr(self.sampler, 'dataset', None)
        return len(self.sampler) * self.world_size if dataset is None else len(dataset)

    def reseed(self, seed: int) -> None:
        """Takes the seed of the run that is resumed, where the config leaves it to chance."""
        if getattr(self.sampler, 'seed', None) == self.seed:
            self.sampler.seed = seed
        self.seed = seed


class SeededSamples:
    """A dataset's ``__getitems__``, which torch's data loader calls for a batch. Each sample is seeded by itself.

    Args:
        dataset: The dataset.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __call__(self, indices: list[SeededIndex]) -> list:
        return [self._sample(index) for index in indices]

    def _sample(self, index: SeededIndex) -> Any:
        seed_cpu(SAMPLE, index.seed, index.epoch, index, *([index.repeat] if index.repeat else []))
        return self.dataset[int(index)]


def exact_dataloader(settings: dict, seed: int) -> dict:
    """The config of a data loader with :class:`ExactBatchSampler` around its batch sampler."""
    settings = dict(settings)
    inner, drop_last = settings.get('batch_sampler'), settings.pop('drop_last', False)
    settings['batch_sampler'] = dict(type='PVTExactBatchSampler', seed=seed, drop_last=drop_last, batch_sampler=inner)
    return settings


def exact_loop(settings: dict) -> dict:
    """The config of a training loop, by the loops of this module; another kind of loop is left, which is said."""
    settings = dict(settings)
    by_epoch = settings.pop('by_epoch', None)
    kind = settings.get('type', 'EpochBasedTrainLoop' if by_epoch else 'IterBasedTrainLoop')
    name = kind if isinstance(kind, str) else kind.__name__
    if name not in ('EpochBasedTrainLoop', 'IterBasedTrainLoop'):
        print_log(
            f"exact_resume: train_cfg.type={name} is none of mmengine's loops. The run goes on roughly where it is "
            'resumed, not exactly',
            logger='current',
            level=logging.WARNING,
        )
        return settings
    return dict(settings, type=f'PVT{name}')


class ExactLoop:
    """What the two loops share: iterations with random numbers of their own, and validations that are not lost."""

    runner: MMEngineRunner
    dataloader: DataLoader

    def start(self) -> None:
        """Prepares the run for where it is resumed. A validation that was due there and is not done is done."""
        self.dataloader.batch_sampler.reseed(self.runner.seed)
        self._decide_current_val_interval()
        if self._iter and self.is_due() and self.runner.message_hub.runtime_info.get(VALIDATED) != self._iter:
            self.runner.val_loop.run()

    def validate(self) -> None:
        self._decide_current_val_interval()
        if self.is_due():
            self.runner.val_loop.run()

    def reaches(self, step: int, last: int) -> bool:
        """Whether the model is validated at this step, epoch or iteration."""
        return (
            self.runner.val_loop is not None
            and step >= self.val_begin
            and (step % self.val_interval == 0 or step == last)
        )

    def seed_iteration(self) -> None:
        seed_everything(ITERATION, self.runner.seed, get_rank(), self._iter)


@LOOPS.register_module('PVTEpochBasedTrainLoop')
class ExactEpochBasedTrainLoop(ExactLoop, EpochBasedTrainLoop):
    """mmengine's loop by epochs that goes on inside an epoch too, without loading what was trained on."""

    def run(self) -> torch.nn.Module:
        self.runner.call_hook('before_train')
        self.start()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self.validate()
        self.runner.call_hook('after_train')
        return self.runner.model

    def is_due(self) -> bool:
        return self._iter == self._epoch * len(self.dataloader) and self.reaches(self._epoch, self._max_epochs)

    def run_epoch(self) -> None:
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        done = max(0, self._iter - self._epoch * len(self.dataloader))
        self.dataloader.batch_sampler.skip = done
        for idx, data_batch in enumerate(self.dataloader, done):
            self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        self.seed_iteration()
        super().run_iter(idx, data_batch)


@LOOPS.register_module('PVTIterBasedTrainLoop')
class ExactIterBasedTrainLoop(ExactLoop, IterBasedTrainLoop):
    """mmengine's loop by iterations that goes on without loading what was trained on."""

    def run(self) -> torch.nn.Module:
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.start()
        self.dataloader_iterator = self._batches()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self.validate()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def is_due(self) -> bool:
        return self.reaches(self._iter, self._max_iters)

    def _batches(self) -> Iterator[Sequence[dict]]:
        """The batches of one epoch after the other, from this iteration on; an infinite sampler has one alone."""
        sampler, epoch = self.dataloader.batch_sampler, 0
        sampler.skip = self._iter
        while True:
            if hasattr(sampler.sampler, 'set_epoch'):
                sampler.sampler.set_epoch(epoch)
            yield from self.dataloader
            epoch += 1

    def run_iter(self, data_batch: Sequence[dict]) -> None:
        self.seed_iteration()
        super().run_iter(data_batch)


class ExactResumeHook(Hook):
    """Keeps in a checkpoint what a resumed run must know and mmengine's checkpoints lack."""

    priority = 'HIGHEST'

    def after_val_epoch(self, runner: MMEngineRunner, metrics: dict | None = None) -> None:
        runner.message_hub.update_info(VALIDATED, runner.iter)

    def before_save_checkpoint(self, runner: MMEngineRunner, checkpoint: dict) -> None:
        checkpoint['hooks'] = {
            name: {key: getattr(hook, key) for key in HOOK_STATE[name]} for name, hook in _hooks_with_state(runner)
        }

    def after_load_checkpoint(self, runner: MMEngineRunner, checkpoint: dict) -> None:
        if runner._resume:
            for name, hook in _hooks_with_state(runner):
                for key, value in checkpoint.get('hooks', {}).get(name, {}).items():
                    if key in HOOK_STATE[name]:
                        setattr(hook, key, value)


def _hooks_with_state(runner: MMEngineRunner) -> list[tuple[str, Hook]]:
    return [(type(hook).__name__, hook) for hook in runner.hooks if type(hook).__name__ in HOOK_STATE]
