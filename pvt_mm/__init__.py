"""The Pyramid Vision Transformer for MMDetection and MMSegmentation.

Importing this package registers its parts under mmengine's root registries, where the configs of mmdet, mmseg and
mmpretrain find them.
"""

from .engine import Runner
from .models import PVT, ColumnarViT, PVTv2

__all__ = ['PVT', 'ColumnarViT', 'PVTv2', 'Runner']
__version__ = '0.1.0'
