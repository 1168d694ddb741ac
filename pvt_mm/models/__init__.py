from .pvt import PVT
from .pvt_v2 import PVTv2
from .vit import ColumnarViT

__all__ = ['PVT', 'ColumnarViT', 'PVTv2']
