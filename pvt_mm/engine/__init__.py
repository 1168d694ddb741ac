from .runner import Runner, resumes

__all__ = ['Runner', 'resumes']
