"""Holds the first turn of a Slurm job at one iteration until Slurm's warning, so that it comes there on any machine."""

import os
import time

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from pvt_mm.engine.signals import StopHook


@HOOKS.register_module()
class PauseHook(Hook):
    def __init__(self, iteration: int):
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        first_turn = 'SLURM_JOB_ID' in os.environ and 'SLURM_RESTART_COUNT' not in os.environ
        if first_turn and runner.iter + 1 == self.iteration:
            stop = next(hook for hook in runner.hooks if isinstance(hook, StopHook))
            while not stop._received:
                time.sleep(0.1)
