from .pvt import PVT
from .vit import ViT

__all__ = ['PVT', 'ViT']
