import pickle
import random
from functools import cache
from itertools import chain, islice

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.model import BaseModel
from mmengine.registry import DATASETS
from torch import nn
from torch.utils.data import Dataset

from pvt_mm.engine import Runner
from pvt_mm.engine.exact import ExactBatchSampler, SeededIndex, SeededSamples

LENGTH, BATCH = 11, 2


@DATASETS.register_module('RandomNumbers', force=True)
class RandomNumbers(Dataset):
    """Samples that draw from every generator."""

    metainfo = {}

    def __init__(self, length: int = LENGTH) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index / 10, random.random(), np.random.rand(), torch.rand(1).item()])


class Dropped(BaseModel):
    """A model with dropout, whose loss is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)
        self.drop = nn.Dropout(0.5)
        nn.init.constant_(self.layer.weight, 0.1)
        nn.init.zeros_(self.layer.bias)

    def forward(self, *samples: torch.Tensor, mode: str):
        out = self.drop(self.norm(self.layer(torch.stack(samples)))).square().mean()
        return dict(loss=out) if mode == 'loss' else [float(out)] * len(samples)


LOOPS = dict(
    epochs=dict(train_cfg=dict(by_epoch=True, max_epochs=3)),
    iterations=dict(train_cfg=dict(by_epoch=False, max_iters=17, val_interval=5)),
)
SCHEDULE = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=10), dict(type='StepLR', step_size=1)]


def train(work_dir, loop: str, workers: int = 0, accumulate: int = 1, sampler: str = 'DefaultSampler', **settings):
    """A run that trained to its end, with a checkpoint after each iteration."""
    runner = Runner(
        Dropped(),
        str(work_dir),
        train_dataloader=dict(
            batch_size=BATCH,
            num_workers=workers,
            persistent_workers=workers > 0,
            sampler=dict(type=sampler, shuffle=True),
            dataset=dict(type='RandomNumbers'),
        ),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1), accumulative_counts=accumulate),
        param_scheduler=SCHEDULE,
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)),
        custom_hooks=[dict(type='EMAHook')],
        randomness=dict(seed=3),
        experiment_name=str(work_dir).replace('/', '_'),
        cfg=dict(exact_resume=True, report=False),
        **LOOPS[loop],
        **settings,
    )
    runner.train()
    return runner


def state(runner: Runner) -> dict:
    """Everything that training led to."""
    ema = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook').ema_model
    scalars = runner.message_hub.log_scalars
    log = {key: scalars[key].data[0] for key in ('train/loss', 'train/lr')}
    return dict(
        weights=runner.model.state_dict(),
        ema=ema.state_dict(),
        optimizer=runner.optim_wrapper.state_dict(),
        schedulers=[(scheduler.last_step, scheduler.get_last_value()) for scheduler in runner.param_schedulers],
        log=log,
        place=(runner.epoch, runner.iter),
    )


def same(a, b) -> None:
    """Fails where two states differ in a bit."""
    torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.fixture(scope='module')
def left_alone(tmp_path_factory):
    @cache
    def run(loop: str, accumulate: int = 1, sampler: str = 'DefaultSampler'):
        work_dir = tmp_path_factory.mktemp('alone')
        return work_dir, state(train(work_dir, loop, accumulate=accumulate, sampler=sampler))

    return run


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('loop, end', [('epochs', 18), ('iterations', 17)])
def test_a_run_resumed_anywhere_ends_like_one_left_alone(left_alone, loop, end, workers, tmp_path):
    work_dir, expected = left_alone(loop)
    assert expected['place'][1] == end and len(expected['log']['train/loss']) == end
    for iteration in (1, 5, 6, 7, end - 1, end):
        resumed = train(
            tmp_path / str(iteration), loop, workers, load_from=f'{work_dir}/iter_{iteration}.pth', resume=True
        )
        same(state(resumed), expected)


def test_the_number_of_workers_does_not_matter(left_alone, tmp_path):
    same(state(train(tmp_path, 'epochs', workers=1)), left_alone('epochs')[1])
    same(state(train(tmp_path / 'i', 'iterations', workers=2)), left_alone('iterations')[1])


def test_an_infinite_sampler_goes_on_where_it_was(left_alone, tmp_path):
    work_dir, expected = left_alone('iterations', sampler='InfiniteSampler')
    for iteration in (3, 11):
        resumed = train(
            tmp_path / str(iteration),
            'iterations',
            workers=2,
            sampler='InfiniteSampler',
            load_from=f'{work_dir}/iter_{iteration}.pth',
            resume=True,
        )
        same(state(resumed), expected)


@pytest.mark.parametrize('loop', LOOPS)
def test_accumulated_gradients_go_on_after_an_update(left_alone, loop, tmp_path):
    work_dir, expected = left_alone(loop, accumulate=4)
    for iteration in (4, 8, 16):
        resumed = train(
            tmp_path / str(iteration), loop, accumulate=4, load_from=f'{work_dir}/iter_{iteration}.pth', resume=True
        )
        same(state(resumed), expected)


def test_random_numbers_differ_between_samples_epochs_and_iterations():
    items = SeededSamples(RandomNumbers())
    samples = items([SeededIndex(index, seed=3, epoch=epoch) for index in (0, 1) for epoch in (0, 1)])
    assert len({float(value) for sample in samples for value in sample[1:]}) == 12
    same(items([SeededIndex(1, seed=3, epoch=0)])[0], samples[2])
    assert not torch.equal(items([SeededIndex(1, seed=4, epoch=0)])[0], samples[2])


def batches(sampler, skip: int = 0, number: int | None = None, **settings) -> list[list[SeededIndex]]:
    exact = ExactBatchSampler(sampler, BATCH, seed=0, **settings)
    exact.skip = skip
    return list(islice(exact, number))


def test_batches_are_left_out_without_loading():
    data = RandomNumbers()
    sampler = DefaultSampler(data, shuffle=True, seed=1)
    assert len(batches(sampler)) == 6 and batches(sampler, 4) == batches(sampler)[4:]
    assert len(batches(sampler, drop_last=True)) == 5
    infinite = [InfiniteSampler(data, shuffle=True, seed=1) for _ in range(2)]  # each gives its numbers once
    assert batches(infinite[0], 20, 3) == batches(infinite[1], 0, 23)[20:]
    by_shape = dict(type='mmdet.AspectRatioBatchSampler')
    data.get_data_info = lambda index: dict(width=index % 3, height=1)
    import mmdet.datasets.samplers  # noqa: F401

    grouped = batches(sampler, batch_sampler=by_shape)
    assert all(len({index % 3 < 1 for index in batch}) == 1 for batch in grouped[:3])
    assert batches(sampler, 2, batch_sampler=by_shape) == grouped[2:]


def test_an_index_tells_how_often_its_sampler_went_through_the_data():
    infinite = InfiniteSampler(RandomNumbers(), shuffle=True, seed=1)
    drawn = list(chain(*batches(infinite, 0, 11)))
    assert [index.epoch for index in drawn] == [0] * LENGTH + [1] * LENGTH
    assert sorted(drawn[:LENGTH]) == list(range(LENGTH))
    again = pickle.loads(pickle.dumps(drawn[-1]))
    assert (again, again.seed, again.epoch) == (drawn[-1], 0, 1)


@pytest.mark.parametrize('kind', [DefaultSampler, InfiniteSampler])
def test_processes_share_the_batches_of_one(kind, monkeypatch):
    def drawn(world: int, rank: int) -> list[list[SeededIndex]]:
        for place in ('mmengine.dataset.sampler', 'pvt_mm.engine.exact'):
            monkeypatch.setattr(f'{place}.get_dist_info', lambda: (rank, world))
        sampler = ExactBatchSampler(kind(RandomNumbers(16), shuffle=True, seed=1), 4 // world, seed=0)
        sampler.skip = 0
        return list(islice(sampler, 4))

    alone, shares = drawn(1, 0), [drawn(2, rank) for rank in (0, 1)]
    for batch, *parts in zip(alone, *shares, strict=True):
        assert sorted((i, i.epoch) for i in batch) == sorted((i, i.epoch) for part in parts for i in part)
