"""The errors that a user can mend. A command prints the message in one line in place of a traceback."""


class SettingError(Exception):
    """A setting, file or folder of the user's is at fault. The message names it and the way out."""


class CheckpointError(SettingError):
    """A checkpoint cannot be fetched or read, or does not fit."""


class DataError(SettingError):
    """A dataset on which a run would fail. The message has a line for each fault."""
