from .bad_data import BadDataHook
from .layer_decay import LayerDecayConstructor
from .resume import latest_checkpoint, resumes
from .runner import Runner
from .saving import CheckpointHook
from .signals import StopHook

__all__ = [
    'BadDataHook',
    'CheckpointHook',
    'LayerDecayConstructor',
    'Runner',
    'StopHook',
    'latest_checkpoint',
    'resumes',
]
