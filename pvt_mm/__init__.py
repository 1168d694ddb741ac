"""The Pyramid Vision Transformer for MMDetection and MMSegmentation.

Importing this package registers its parts under mmengine's root registries, where the configs of mmdet, mmseg and
mmpretrain find them, and makes checkpoints load as data (:mod:`pvt_mm.checkpoint`).
"""
from . import checkpoint, engine, models

__all__ = ['checkpoint', 'engine', 'models']
__version__ = '0.1.0'
