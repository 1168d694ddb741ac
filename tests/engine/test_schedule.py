"""Schedules against the length of their run."""

import re

import pytest
from mmengine.config import Config

from pvt_mm.engine.schedule import check_schedule


def check(*schedulers, epoch_length=10, **train_cfg) -> list[str]:
    cfg = Config(dict(train_cfg=train_cfg or dict(max_epochs=12), param_scheduler=list(schedulers)))
    lines = []
    check_schedule(cfg, epoch_length, lines.append)
    return lines


WARM_UP = dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500)
COSINE = dict(type='CosineAnnealingLR', begin=0, T_max=12, end=12)


def test_a_run_that_ends_inside_its_warm_up_is_told_its_length():
    assert check(WARM_UP) == [
        'WARNING: the run ends inside its own warm-up: param_scheduler.0 raises the learning rate until iteration 500, '
        'and the run has 12 epochs of 10 iterations: set param_scheduler.0.end=12, or train longer'
    ]
    assert check(WARM_UP, epoch_length=100) == check(WARM_UP, epoch_length=None) == []
    assert 'the run has 400 iterations: set param_scheduler.0.end=40' in check(WARM_UP, max_iters=400)[0]
    assert 'until epoch 20' in check(dict(type='LinearLR', begin=0, end=20))[0]
    assert 'inside its own warm-up' in check(dict(type='QuadraticWarmupLR', by_epoch=True, end=12))[0]
    assert 'inside its own warm-up' in check(dict(type='ConstantLR', by_epoch=True, end=12))[0]


@pytest.mark.parametrize(
    'scheduler, said',
    [
        (dict(type='MultiStepLR', milestones=[8, 11]), None),
        (dict(type='MultiStepLR', milestones=[8, 27, 33]), 'the milestones [27, 33] change nothing'),
        (COSINE, None),
        (dict(COSINE, T_max=36, end=36), 'lowers the learning rate until epoch 36, .* set param_scheduler.0.T_max=12'),
        (dict(COSINE, T_max=4), 'lowers the learning rate until epoch 4, .* set param_scheduler.0.T_max=12'),
        (dict(COSINE, begin=2, T_max=10), None),
        (dict(COSINE, begin=2, T_max=12), 'until epoch 14, .*: set param_scheduler.0.T_max=10'),
        (dict(type='PolyLR', by_epoch=False, end=80), 'until iteration 80, .* 12 epochs of 10 .*: set .*end=120'),
        (dict(type='PolyLR', by_epoch=False, end=118), None),  # about the run's length
        (dict(type='PolyLR', by_epoch=False, end=240), 'set param_scheduler.0.end=120'),
        (dict(type='LinearLR', start_factor=1.0, end_factor=0.1, end=20), 'lowers .* until epoch 20'),
        (dict(type='ConstantLR', factor=1.0, end=20), None),
    ],
)
def test_a_schedule_of_another_length_than_the_run_is_told_what_to_set(scheduler, said):
    lines = check(scheduler)
    assert lines == [] if said is None else re.search(said.replace('[', r'\[').replace(']', r'\]'), lines[0])


def test_a_decay_to_more_than_the_learning_rate_is_told():
    poly = dict(type='PolyLR', eta_min=1e-4, power=0.9, end=12)  # mmseg's, for SGD
    cfg = Config(
        dict(train_cfg=dict(max_epochs=12), param_scheduler=[poly], optim_wrapper=dict(optimizer=dict(lr=1e-4)))
    )
    lines = []
    check_schedule(cfg, 10, lines.append)
    assert lines == [
        'WARNING: param_scheduler.0 ends at eta_min=0.0001, and so does not lower the learning rate of 0.0001: set '
        'param_scheduler.0.eta_min=0'
    ]
    cfg.optim_wrapper.optimizer.lr = 0.01
    check_schedule(cfg, 10, lines.append)
    assert len(lines) == 1


def test_a_decay_that_another_scheduler_follows_may_end_before_the_run():
    assert check(dict(COSINE, T_max=10, end=10), dict(type='ConstantLR', factor=1, begin=10, end=12)) == []


def test_a_schedule_in_epochs_never_steps_in_a_run_of_iterations():
    (line,) = check(COSINE, max_iters=400)
    assert line == (
        'WARNING: param_scheduler.0 counts epochs, and the run iterations: it never steps. '
        'Set param_scheduler.0.by_epoch=False'
    )


def test_the_schedulers_of_several_optimizers_are_found():
    cfg = Config(dict(train_cfg=dict(max_epochs=2), param_scheduler=dict(generator=[COSINE], discriminator=[])))
    lines = []
    check_schedule(cfg, None, lines.append)
    assert lines[0].startswith('WARNING: param_scheduler.generator.0 lowers')
