"""What ``bad_data='skip'`` leaves out of training, said again and again."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner


@HOOKS.register_module('PVTBadDataHook')
class BadDataHook(Hook):
    """Logs what the run leaves out: at the end of each epoch, or, in runs without epochs, before each validation.

    Args:
        left_out: What was left out of each annotation file.
    """

    # after what counts the images that were skipped
    priority = 'VERY_LOW'

    def __init__(self, left_out: list[str]):
        self.left_out = left_out

    def after_train_epoch(self, runner: Runner) -> None:
        self._log(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):  # that has one epoch, the whole run
            self._log(runner)

    def _log(self, runner: Runner) -> None:
        skipped = runner.message_hub.get_info('skipped_images', 0)
        parts = [*self.left_out, *([f'{skipped} unreadable samples'] if skipped else [])]
        runner.logger.info(f"bad_data='skip' left out: {'; '.join(parts) or 'nothing'}")
