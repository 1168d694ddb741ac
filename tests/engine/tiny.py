"""A model that trains in milliseconds, and its runner."""

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from torch import nn

from pvt_mm.engine import Runner


class Line(BaseModel):
    """A model that learns the mean of numbers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, *x, mode):
        if mode != 'loss':
            return list(x)
        return dict(loss=self.layer(torch.stack(x)).square().mean())


class Score(BaseMetric):
    """Rises with each evaluation."""

    def __init__(self, names):
        super().__init__()
        self.names, self.evaluations = names, 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        self.evaluations += 1
        return {name: float(self.evaluations) for name in self.names}


def line_runner(work_dir, name: str, epochs: int = 2, images: int = 4, workers: int = 0, **settings) -> Runner:
    """A runner that trains for the given epochs in batches of two; names of runners in a process differ."""
    settings = (
        dict(
            train_dataloader=dict(
                batch_size=2,
                num_workers=workers,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=list(torch.ones(images, 1)),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
            default_hooks=dict(logger=None),
        )
        | settings
    )
    settings['default_hooks'] = dict(runtime_info=None) | settings['default_hooks']
    return Runner(Line(), str(work_dir), experiment_name=f'{work_dir}_{name}', **settings)


def validated(images: int = 4, metrics: tuple[str, ...] = ('acc',)) -> dict:
    """The settings of a runner that validates after each epoch."""
    return dict(
        val_dataloader=dict(
            batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False), dataset=list(torch.ones(images, 1))
        ),
        val_cfg=dict(),
        val_evaluator=[Score(metrics)],
    )
