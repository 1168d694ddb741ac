from .pvt import PVT
from .vit import ColumnarViT

__all__ = ['PVT', 'ColumnarViT']
