from .bad_data import BadDataHook
from .resume import latest_checkpoint, resumes
from .runner import Runner
from .saving import CheckpointHook
from .signals import StopHook

__all__ = ['BadDataHook', 'CheckpointHook', 'Runner', 'StopHook', 'latest_checkpoint', 'resumes']
