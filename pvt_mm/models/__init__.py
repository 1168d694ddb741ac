from typing import Any

from mmengine.registry import MODELS

from .classifier import Logits
from .pvt import PVT
from .pvt_v2 import PVTv2
from .vit import ColumnarViT

__all__ = ['PVT', 'ColumnarViT', 'Logits', 'PVTv2', 'Trans2SegHead']


def __getattr__(name: str) -> Any:
    """``import pvt_mm`` imports no mmseg, on which the heads stand: they are imported where they are used."""
    if name == 'Trans2SegHead':
        from .trans2seg import Trans2SegHead

        return Trans2SegHead
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


@MODELS.register_module('Trans2SegHead')
def _trans2seg_head(**settings: Any) -> Any:
    from .trans2seg import Trans2SegHead

    return Trans2SegHead(**settings)


@MODELS.register_module('PVTDeepLabV3PlusHead')
def _deeplab_head(**settings: Any) -> Any:
    from .deeplab import DeepLabV3PlusHead

    return DeepLabV3PlusHead(**settings)
