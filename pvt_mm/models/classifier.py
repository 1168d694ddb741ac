"""What stands between a backbone with ``num_classes`` and mmpretrain's classifier."""

from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module('PVTLogits')
class Logits(nn.Module):
    """Hands on the logits of a backbone in the tuple that mmpretrain's ``ClsHead`` reads; it has no weights.

    In a config of mmpretrain's ``ImageClassifier``::

        backbone=dict(type='PVT', arch='small', num_classes=1000),
        neck=dict(type='PVTLogits'),
        head=dict(type='ClsHead'),
    """

    def forward(self, logits: Tensor) -> tuple[Tensor]:
        return (logits,)
