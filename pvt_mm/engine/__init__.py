from .resume import latest_checkpoint, resumes
from .runner import Runner

__all__ = ['Runner', 'latest_checkpoint', 'resumes']
