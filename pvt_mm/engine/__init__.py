from .bad_data import BadDataHook
from .resume import latest_checkpoint, resumes
from .runner import Runner

__all__ = ['BadDataHook', 'Runner', 'latest_checkpoint', 'resumes']
