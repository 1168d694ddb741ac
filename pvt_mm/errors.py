"""The errors that a user can mend. A command prints the message in one line in place of a traceback."""


class SettingError(Exception):
    """A setting, file or folder of the user's is at fault. The message names it and the way out."""

    on_one_process = False  # of several processes, each of which ends with this error


class CheckpointError(SettingError):
    """A checkpoint cannot be fetched or read, or does not fit."""


class DataError(SettingError):
    """A dataset on which a run would fail. The message has a line for each fault."""


class TrainingError(SettingError):
    """A training run that would go on with values that are not finite. The message says where they arose."""


class StepError(TrainingError):
    """One process cannot go on with a training step. The message names the images."""

    on_one_process = True


class WorkerError(SettingError):
    """A worker of a data loader was killed. The message names the file that it was on."""

    on_one_process = True
