"""Mixed precision, which mmcv 2.1.0's compiled ops do not stand: in bfloat16 they have no kernels and raise; in float16
the focal loss takes the logarithm of 1 - p, which from a logit of 9 on is 0, and the loss is NaN."""

from collections.abc import Callable
from functools import cache, wraps

import torch
from torch import Tensor
from torch.amp import custom_fwd


@cache  # once in a process
def keep_ops_in_float32() -> None:
    """Makes mmcv's focal loss and NMS, and mmdet's RoI extractor, compute in float32 under autocast, in this process.

    It is for a process of our own: it replaces methods of mmcv and mmdet. The extractor casts boxes to the type of the
    maps, which rounds a coordinate of 800 to 4 px in bfloat16, to half a pixel in float16.
    """
    from mmcv.ops.focal_loss import SigmoidFocalLossFunction
    from mmcv.ops.nms import NMSop
    from mmdet.models.roi_heads import SingleRoIExtractor

    for function in (SigmoidFocalLossFunction, NMSop):
        for device in ('cpu', 'cuda'):
            function.forward = staticmethod(custom_fwd(function.forward, device_type=device, cast_inputs=torch.float32))
    SingleRoIExtractor.forward = _of_float32_maps(SingleRoIExtractor.forward)


def _of_float32_maps(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:

    @wraps(forward)
    def wrapped(self, feats: tuple[Tensor, ...], *args, **kwargs) -> Tensor:
        return forward(self, tuple(feat.float() for feat in feats), *args, **kwargs)

    return wrapped
