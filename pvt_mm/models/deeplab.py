"""DeepLabV3+ as in the paper's Table 7 (arXiv). Imported for a segmenter only: ``import pvt_mm`` imports no mmseg."""

from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import DepthwiseSeparableASPPHead


class DeepLabV3PlusHead(DepthwiseSeparableASPPHead):
    """mmseg's head with a 1x1 convolution after the branches, by the table's parameters; mmseg's is 3x3."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.bottleneck = ConvModule(
            self.bottleneck.in_channels, self.channels, 1, norm_cfg=self.norm_cfg, act_cfg=self.act_cfg
        )
