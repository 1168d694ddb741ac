"""Writes ``report.html`` at each evaluation and at the end of a training run."""

import logging
import os
import time
from pathlib import Path

from mmengine.dist import get_world_size, master_only
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop

from .mistakes import Mistakes


@HOOKS.register_module('PVTReportHook')
class ReportHook(Hook):
    """Leaves ``report.html`` in the work directory, and gives each evaluation :class:`Mistakes`.

    ``Runner`` has it unless the config says ``report = False``; another runner takes it in ``custom_hooks``. Where the
    report cannot be made, a line in the log says why, and the run goes on.
    """

    priority = 'LOWEST'  # when the logger has written the figures

    def __init__(self) -> None:
        self._fixed = {}  # the parts of the page that stay the same through a run
        self._metrics = {}
        self._start = time.time()

    def before_val(self, runner) -> None:
        self._watch(runner, runner.val_loop)

    def before_test(self, runner) -> None:
        self._watch(runner, runner.test_loop)

    def _watch(self, runner, loop) -> None:
        """Adds the metric to an evaluation that has none, on every process alike."""
        evaluator = getattr(loop, 'evaluator', None)
        if type(evaluator) is not Evaluator or any(isinstance(metric, Mistakes) for metric in evaluator.metrics):
            return
        if _resizes_truth(loop.dataloader.dataset):
            print_log(
                'the confusion matrix is left out: the pipeline resizes what LoadAnnotations gives, and predictions '
                "have the image's own size; put LoadAnnotations behind Resize",
                'current',
                logging.WARNING,
            )
            return
        metric = Mistakes(Path(runner.work_dir, runner.timestamp, 'mistakes.json'))
        metric.dataset_meta = evaluator.dataset_meta
        evaluator.metrics.append(metric)

    def before_train(self, runner) -> None:
        self._start = time.time()

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        if isinstance(runner._train_loop, (dict, type(None))):
            return  # validation alone
        self._metrics = metrics or {}
        self._write(runner)

    def after_train(self, runner) -> None:
        self._write(runner, finished=True)

    @master_only
    def _write(self, runner, finished: bool = False) -> None:
        path = Path(runner.work_dir, 'report.html')
        try:
            partial = path.with_suffix('.partial')
            partial.write_text(self._make(runner, finished), encoding='utf-8')
            os.replace(partial, path)
        except Exception as error:  # the training is worth more
            reason = str(error).partition('\n')[0]
            print_log(f'{path} was not written: {type(error).__name__}: {reason}', 'current', logging.WARNING)

    def _make(self, runner, finished: bool) -> str:
        # here, as they import Jinja2 and matplotlib
        from . import page

        if not self._fixed:
            datasets = [page.describe_dataset('training', runner.train_dataloader.dataset)]
            if runner.val_loop is not None:
                datasets.append(page.describe_dataset('validation', runner.val_dataloader.dataset))
            self._fixed = dict(
                config=page.describe_config(runner.cfg),
                classes=list(getattr(runner.train_dataloader.dataset, 'metainfo', {}).get('classes') or ()),
                datasets=datasets,
                environment=page.describe_environment(),
            )
        loop, loader = runner.train_loop, runner.train_dataloader
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        batch = getattr(loader.batch_sampler, 'batch_size', None)
        made = page.make_charts(
            runner.work_dir,
            len(loader) if by_epoch else None,
            batch and batch * get_world_size(),
            self._fixed['config']['paper'],
        )
        mistakes = runner.message_hub.get_info('mistakes')
        return page.render(
            **self._fixed,
            **made,
            finished=finished,
            progress=f'epoch {runner.epoch} of {runner.max_epochs}'
            if by_epoch
            else f'iteration {runner.iter} of {runner.max_iters}',
            hours=(time.time() - self._start) / 3600,
            written=time.strftime('%Y-%m-%d %H:%M'),
            findings=runner.message_hub.get_info('findings'),
            skipped=runner.message_hub.get_info('skipped_images'),
            mistakes=mistakes and page.describe_mistakes(mistakes),
            class_table=mistakes
            and page.describe_classes(mistakes, self._metrics, self._fixed['datasets'][0]['objects']),
        )


def _resizes_truth(dataset) -> bool:
    """Whether annotations are loaded before the image is resized."""
    from ..engine.unreadable import GuardedLoading  # here, as the engine imports this module

    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    steps = [type(step.transform if isinstance(step, GuardedLoading) else step).__name__ for step in steps]
    loaded = next((i for i, step in enumerate(steps) if step.endswith('LoadAnnotations')), len(steps))
    return any('Resize' in step for step in steps[loaded:])
