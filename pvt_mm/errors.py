class SettingError(Exception):
    """A setting, file or folder that the user gave is at fault; the message is one line that names it and the way
    out."""
