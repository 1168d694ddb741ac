import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner as MMEngineRunner
from mmengine.structures import BaseDataElement
from torch import nn

from pvt_mm.engine import Runner
from pvt_mm.engine.nonfinite import NonFiniteHook, skipped_in_a_row
from pvt_mm.engine.step import Step, first_nonfinite, unpack
from pvt_mm.errors import CheckpointError, SettingError, TrainingError
from pvt_mm.weights.reading import read_checkpoint
from tests.common import ROOT


class Root(nn.Module):
    def forward(self, x):
        return x.sqrt()


class Chain(BaseModel):
    """The mean of its numbers' roots: NaN for one below 0; at 0 the loss is finite and its gradient is not."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.first = nn.Linear(1, 1, bias=False)
        self.root = Root()
        self.last = nn.Linear(1, 1)
        nn.init.constant_(self.first.weight, 1)

    def forward(self, inputs, data_samples, mode):
        return self.loss(inputs, data_samples)

    def loss(self, inputs, data_samples):
        inputs = torch.stack(list(inputs))
        out = self.last(self.root(self.first(inputs)))
        return dict(loss=out.square().mean() + 0 * self.norm(out).sum(), acc=inputs.mean())


class Matcher(Chain):
    def loss(self, inputs, data_samples):
        losses = super().loss(inputs, data_samples)
        if losses['loss'].isnan() or inputs[0] == 7:
            raise ValueError('matrix contains invalid numeric entries')
        return losses


class Samples(list):
    """A dataset."""


@pytest.fixture
def runner(tmp_path):
    """Makes a runner that trains on the given numbers, one at a time, each in a sample ``<place>.jpg``."""
    made = []

    def make(numbers, kind=Runner, model=Chain, nonfinite='stop', optim=(), **settings) -> Runner:
        made.append(kind)
        torch.manual_seed(0)
        samples = Samples(
            dict(inputs=torch.tensor([float(number)]), data_samples=BaseDataElement(metainfo=dict(img_path=f'{i}.jpg')))
            for i, number in enumerate(numbers)
        )
        defaults = dict(
            train_dataloader=dict(batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False), dataset=samples),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)) | dict(optim),
            default_hooks=dict(logger=None),
            experiment_name=f'{tmp_path.name}_{len(made)}',
            cfg=dict(nonfinite=nonfinite, report=False),
        )
        return kind(model(), str(tmp_path / 'work'), **defaults | settings)

    return make


def fault(run: Runner) -> str:
    with pytest.raises(TrainingError) as error:
        run.train()
    assert '\n' not in str(error.value)
    return str(error.value)


def test_a_loss_that_is_nan_stops_before_anything_changes(runner, tmp_path):
    good = runner([1, 2])
    good.train()
    run = runner([1, 2, 3, -1, 1, 1], custom_hooks=[dict(type='EMAHook')])
    text = fault(run)
    assert text.startswith('iteration 2 is not finite: loss nan, acc 1; images: 2.jpg, 3.jpg; the first output')
    assert 'is of root (Root); no weight was changed; pvt-mm replay' in text
    state = run.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in good.model.state_dict().items())
    ema = next(hook for hook in run.hooks if type(hook).__name__ == 'EMAHook')
    assert first_nonfinite([ema.ema_model.state_dict(), run.optim_wrapper.state_dict()]) is None
    assert {path.name for path in (tmp_path / 'work').glob('*.pth')} == {'epoch_1.pth', 'nonfinite_2.pth'}
    kept = read_checkpoint(str(tmp_path / 'work' / 'nonfinite_2.pth'))
    assert all(torch.equal(value, kept['state_dict'][key]) for key, value in good.model.state_dict().items())
    assert kept['optimizer']['state'] and kept['meta']['images'] == ['2.jpg', '3.jpg']


@pytest.mark.parametrize(
    'clip', [{}, dict(clip_grad=dict(max_norm=1)), dict(clip_grad=dict(type='value', clip_value=1))]
)
def test_a_gradient_that_is_not_finite_is_named(runner, clip):
    run = runner([1, 2, 3, 0], optim=clip)
    text = fault(run)
    assert 'all losses are finite; the first gradient that is not is of first.weight' in text
    assert first_nonfinite(run.model.state_dict()) is None


def test_gradients_that_are_gathered_are_looked_at_in_each_iteration(runner):
    text = fault(runner([1, 2, 3, 0, 1, 1, 1, 1], optim=dict(accumulative_counts=4)))
    assert text.startswith('iteration 2 ') and 'images: 2.jpg, 3.jpg' in text


class Scaled(OptimWrapper):
    """mmengine's mixed precision, which asks for CUDA, with torch's scaler on a CPU."""

    _scale_update_param = None
    backward, step = AmpOptimWrapper.backward, AmpOptimWrapper.step

    def __init__(self, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)


def test_gradients_that_overflow_in_mixed_precision_are_left_to_the_scaler(runner):
    run = runner([100] * 20, optim=dict(type=Scaled, scale=2.0**127, optimizer=dict(type='SGD', lr=1e-4)))
    run.train()
    assert run.optim_wrapper.loss_scaler.get_scale() < 2.0**127
    assert first_nonfinite(run.model.state_dict()) is None


def test_a_loss_that_is_nan_in_mixed_precision_stops(runner):
    assert fault(runner([1, 2, 1, -1], optim=dict(type=Scaled))).startswith('iteration 2 is not finite: loss nan')


def test_a_scaler_that_leaves_out_every_update_stops(runner):
    text = fault(runner([1, 0] * 40, optim=dict(type=Scaled)))
    assert text.startswith('iteration 30 ') and 'the first gradient that is not is of first.weight' in text


def test_an_optimizer_whose_state_is_not_finite_is_not_resumed(runner, tmp_path):
    runner([1, 2]).train()
    path = tmp_path / 'work' / 'epoch_1.pth'
    checkpoint = torch.load(path, weights_only=True)
    checkpoint['optimizer']['state'][0]['momentum_buffer'].fill_(float('nan'))
    torch.save(checkpoint, path)
    with pytest.raises(CheckpointError, match='optimizer.state.0.momentum_buffer is not finite; take an earlier'):
        runner([1, 2], resume=True).train()


def test_a_batch_that_is_not_finite_is_named(runner):
    assert 'inputs.1 of the batch is not finite' in fault(runner([1, float('nan')]))


def test_an_error_that_a_nan_provokes_is_explained(runner, tmp_path):
    text = fault(runner([1, -1], model=Matcher))
    assert 'is not finite: matrix contains invalid numeric entries; images: 0.jpg, 1.jpg; the first output' in text
    assert (tmp_path / 'work' / 'nonfinite_1.pth').exists()


@pytest.mark.parametrize(
    'error, said',
    [
        (torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB.'), 'OutOfMemoryError: CUDA out'),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), "can't allocate"),
        (MemoryError(), 'MemoryError'),
    ],
)
def test_a_step_without_memory_names_its_images(runner, error, said):
    class Large(Chain):
        def forward(self, *args, **kwargs):
            raise error

    text = fault(runner([1, 2], model=Large))
    assert text.startswith('iteration 1 needs more memory (') and said in text and 'images: 0.jpg, 1.jpg. A sm' in text


def test_another_error_stays_what_it_is(runner):
    class Faulty(Chain):
        def forward(self, *args, **kwargs):
            raise ValueError('a fault of its own')

    with pytest.raises(ValueError, match='a fault of its own'):
        runner([1, 2], model=Faulty).train()


@pytest.mark.parametrize('model', [Chain, Matcher])
def test_skipped_batches_change_nothing_and_are_counted(runner, tmp_path, model):
    good = runner([1, 2, 1, 1])
    good.train()
    run = runner([1, 2, 3, -1, 3, 0, 1, 1], model=model, nonfinite='skip')
    run.train()
    assert 'loss' not in vars(run.model)
    state = run.model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in good.model.state_dict().items())
    assert run.message_hub.get_info('nonfinite_skipped') == 2
    log = (Path(run.log_dir) / f'{run.timestamp}.log').read_text()
    assert 'skipped: 1 in a row (at most 10), 1 in all' in log and '2 in a row (at most 10), 2 in all' in log
    assert (tmp_path / 'work' / 'epoch_1.pth').exists()


def test_other_errors_end_a_run_that_skips(runner):
    with pytest.raises(ValueError, match='invalid numeric entries'):
        runner([1, 2, 7, 1], model=Matcher, nonfinite='skip').train()


def test_too_many_skipped_in_a_row_stop(runner):
    text = fault(runner([-1, -1, 1, 1, -1, -1, -1, -1, -1, -1], nonfinite=dict(skip=2)))
    assert text.startswith('iteration 5 ')


def test_the_newest_three_steps_are_kept(runner, tmp_path):
    runner([-1] * 10, nonfinite='skip').train()
    kept = sorted(path.name for path in (tmp_path / 'work').glob('nonfinite_*'))
    assert kept == ['nonfinite_3.pth', 'nonfinite_4.pth', 'nonfinite_5.pth']


def test_mmengines_runner_takes_the_hook(runner):
    run = runner([1, -1], kind=MMEngineRunner, custom_hooks=[dict(type='PVTNonFiniteHook')])
    assert 'of root (Root)' in fault(run)


def test_a_hook_of_the_configs_own_is_the_only_one(runner):
    run = runner([1, 2], custom_hooks=[dict(type='PVTNonFiniteHook', skip=3)])
    assert [hook.skip for hook in run.hooks if isinstance(hook, NonFiniteHook)] == [3]


def test_settings():
    assert [skipped_in_a_row(setting) for setting in ('stop', 'skip', dict(skip=3))] == [0, 10, 3]
    for wrong in ('ignore', dict(skip=-1), dict(skip=True), dict(limit=3), dict(skip=3, limit=4)):
        with pytest.raises(SettingError, match="is 'stop', 'skip' or dict"):
            skipped_in_a_row(wrong)


def test_weights_that_are_not_finite_are_not_saved(runner, tmp_path):
    run = runner([1, 2])
    nn.init.constant_(run.model.norm.running_mean, float('inf'))
    assert 'state_dict.norm.running_mean is not finite: no checkpoint is written' in fault(run)
    assert not list((tmp_path / 'work').glob('epoch_*'))


def test_an_optimizers_state_that_is_not_finite_is_not_saved(runner):
    run = runner([1, 2])
    run.train()
    run.optim_wrapper.optimizer.state[run.model.first.weight]['momentum_buffer'].fill_(float('inf'))
    with pytest.raises(TrainingError, match=r'^optimizer.state.\d.momentum_buffer is not finite: no checkpoint'):
        run.save_checkpoint(run.work_dir, 'a.pth')
    assert not Path(run.work_dir, 'a.pth').exists()


@pytest.mark.parametrize('train_cfg', [dict(by_epoch=True, max_epochs=2), dict(by_epoch=False, max_iters=8)])
@pytest.mark.parametrize('exact', [False, True])
def test_a_step_with_random_numbers_comes_out_again_in_every_loop(runner, tmp_path, train_cfg, exact):
    class Dropping(Chain):
        """NaN where the random number is above 0.8."""

        def forward(self, inputs, data_samples, mode):
            return super().forward([0.8 * value - torch.rand(1) for value in inputs], data_samples, mode)

    settings = dict(train_cfg=train_cfg, randomness=dict(seed=0))
    run = runner([1] * 8, model=Dropping, cfg=dict(exact_resume=exact, report=False), **settings)
    assert 'the first output that is not finite is of root (Root)' in fault(run)
    content = read_checkpoint(str(next((tmp_path / 'work').glob('nonfinite_*.pth'))))
    model = Dropping()
    model.load_state_dict(content['state_dict'])
    step = Step(
        unpack(content['args'], 'cpu'), unpack(content['kwargs'], 'cpu'), unpack(content['random'], 'cpu'), None
    )
    assert step.run(model).cause == content['meta']['cause']


def test_a_resumed_run_goes_on_counting_what_it_skips(runner, tmp_path):
    checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=1)
    settings = dict(default_hooks=dict(logger=None, checkpoint=checkpoint))
    settings['cfg'] = dict(exact_resume=True, nonfinite=dict(skip=2), report=False)
    assert fault(runner([1, 1] + [-1] * 8, **settings)).startswith('iteration 4 ')
    run = runner([1, 1] + [-1] * 8, resume=True, load_from=str(tmp_path / 'work' / 'iter_2.pth'), **settings)
    assert fault(run).startswith('iteration 4 ')


def test_the_first_that_is_not_finite_is_found():
    good = dict(a=torch.ones(2), index=torch.tensor(3))
    assert first_nonfinite(good) is None
    assert first_nonfinite(dict(good, b=[good, dict(c=torch.tensor([1, float('inf')]))])) == 'b.1.c'


TWO = """
import sys, torch
sys.path.insert(0, {root!r})
torch.distributed.init_process_group('gloo')
from pvt_mm.commands.launch import one_line_errors
from pvt_mm.engine import Runner
from tests.engine.test_nonfinite import BaseDataElement, {model}

numbers = [1] * 6 + [1, -1] + [1] * 4  # the second process has every other sample
data = [dict(inputs=torch.tensor([float(n)]), data_samples=BaseDataElement(metainfo=dict(img_path=f'{{i}}.jpg')))
        for i, n in enumerate(numbers)]

@one_line_errors
def main():
    Runner({model}(), {work!r}, train_dataloader=dict(batch_size=2, dataset=data,
           sampler=dict(type='DefaultSampler', shuffle=False)), train_cfg=dict(by_epoch=True, max_epochs=1),
           optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), launcher='pytorch', experiment_name='two',
           cfg=dict(nonfinite={nonfinite!r}, report=False)).train()
main()
"""


@pytest.mark.parametrize(
    'model, nonfinite, status, what',
    [
        ('Chain', 'stop', 1, 'loss nan'),
        ('Chain', 'skip', 0, 'loss nan'),
        ('Matcher', 'skip', 0, 'matrix contains invalid numeric entries'),
    ],
)
def test_all_processes_stop_or_skip_together(tmp_path, on_cpu, model, nonfinite, status, what):
    code = TWO.format(root=str(ROOT), work=str(tmp_path / 'work'), model=model, nonfinite=nonfinite)
    env = {**os.environ, **on_cpu, 'OMP_NUM_THREADS': '1', 'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1'}
    processes = [
        subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-c', code],
            env={**env, 'MASTER_PORT': on_cpu['PORT'], 'RANK': str(rank), 'LOCAL_RANK': str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [status] * 2, said
    assert f'iteration 2 on process 1 is not finite: {what}' in said[0] and 'images: 5.jpg, 7.jpg; ' in said[0]
    assert 'is not finite' not in said[1]
    assert (tmp_path / 'work' / 'nonfinite_2.pth').exists()
