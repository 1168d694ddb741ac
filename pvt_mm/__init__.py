"""The Pyramid Vision Transformer for MMDetection and MMSegmentation.

Importing this package registers its parts under mmengine's root registries, where the configs of mmdet, mmseg and
mmpretrain find them.
"""

from typing import Any

from . import models
from .engine import Runner
from .models import PVT, ColumnarViT, PVTv2

__all__ = ['PVT', 'ColumnarViT', 'PVTv2', 'Runner', 'Trans2SegHead']
__version__ = '0.1.0'


def __getattr__(name: str) -> Any:
    """Trans2SegHead is imported where it is used: it needs mmseg."""
    if name == 'Trans2SegHead':
        return models.Trans2SegHead
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
