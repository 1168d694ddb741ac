"""The operators of detectors that torch lacks: in PyTorch mmcv's, in ONNX its own NonMaxSuppression and RoiAlign.

A .pt2 file names them: import this module before you load it.
"""

import torch
from mmcv.ops import nms as mmcv_nms
from mmcv.ops import roi_align as mmcv_roi_align
from torch import Tensor


@torch.library.custom_op('pvt_mm::nms', mutates_args=())
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, max_boxes: int) -> Tensor:
    """Non-maximum suppression in each image of a batch.

    Args:
        boxes: (B, N, 4), as x1, y1, x2, y2.
        scores: (B, N). Boxes with a score of 0 or less are left out.
        iou_threshold: A box with a larger IoU with a better one is left out.
        max_boxes: The best so many of an image stay at most.

    Returns:
        Which boxes stay, booleans (B, N).
    """
    kept = torch.zeros_like(scores, dtype=torch.bool)
    for image, (own_boxes, own_scores) in enumerate(zip(boxes, scores)):
        some = (own_scores > 0).nonzero()[:, 0]
        _, best = mmcv_nms(own_boxes[some].contiguous(), own_scores[some].contiguous(), iou_threshold)
        kept[image, some[best[:max_boxes]]] = True
    return kept


@nms.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, max_boxes: int) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


ROI_ALIGN = (
    '(Tensor[] maps, Tensor rois, Tensor levels, SymInt[] strides, SymInt size, SymInt sampling_ratio) -> Tensor'
)


@torch.library.custom_op('pvt_mm::roi_align', mutates_args=(), schema=ROI_ALIGN)  # torch 2.6 cannot infer list[Tensor]
def roi_align(
    maps: list[Tensor], rois: Tensor, levels: Tensor, strides: list[int], size: int, sampling_ratio: int
) -> Tensor:
    """The features of regions, each from one level of a pyramid.

    Args:
        maps: The levels, (B, C, H, W) each.
        rois: (R, 5): the image's number in the batch, x1, y1, x2, y2.
        levels: The level of each region, (R,).
        strides: Those of the levels, in pixels.
        size: Side of the result.
        sampling_ratio: Samples along the side of a bin; 0: as many as it is pixels wide.

    Returns:
        (R, C, size, size).
    """
    out = maps[0].new_zeros(len(rois), maps[0].shape[1], size, size)
    for level, (x, stride) in enumerate(zip(maps, strides)):
        some = (levels == level).nonzero()[:, 0]
        if len(some):
            out[some] = mmcv_roi_align(x, rois[some], (size, size), 1 / stride, sampling_ratio, 'avg', True)
    return out


@roi_align.register_fake
def _(maps: list[Tensor], rois: Tensor, levels: Tensor, strides: list[int], size: int, sampling_ratio: int) -> Tensor:
    return maps[0].new_empty(rois.shape[0], maps[0].shape[1], size, size)


def onnx_translations() -> dict:
    """For :func:`torch.onnx.export`: what stands for the operators in ONNX."""
    from onnxscript import INT64
    from onnxscript import opset18 as op

    def nms_in_onnx(boxes, scores, iou_threshold: float, max_boxes: int):
        limits = [op.Constant(value_ints=[max_boxes]), *(op.Constant(value_floats=[v]) for v in (iou_threshold, 0.0))]
        picked = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, [1]), *limits)  # image, class 0, box
        places = op.Gather(picked, op.Constant(value_ints=[0, 2]), axis=1)
        kept = op.Expand(op.Constant(value_floats=[0.0]), op.Shape(scores))
        ones = op.Expand(op.Constant(value_floats=[1.0]), op.Shape(places, start=0, end=1))
        return op.Greater(op.ScatterND(kept, places, ones), op.Constant(value_float=0.5))

    def roi_align_in_onnx(maps, rois, levels, strides, size: int, sampling_ratio: int):
        shape = op.Concat(
            op.Shape(rois, start=0, end=1),
            op.Shape(maps[0], start=1, end=2),
            op.Constant(value_ints=[size, size]),
            axis=0,
        )
        out = op.Expand(op.Constant(value_floats=[0.0]), shape)
        for level, (x, stride) in enumerate(zip(maps, strides)):
            some = op.Transpose(op.NonZero(op.Equal(levels, op.Constant(value_int=level))), perm=[1, 0])
            own = op.GatherND(rois, some)
            pooled = op.RoiAlign(
                x,
                op.Slice(own, [1], [5], [1]),
                op.Cast(op.Squeeze(op.Slice(own, [0], [1], [1]), [1]), to=INT64.dtype),
                coordinate_transformation_mode='half_pixel',
                output_height=size,
                output_width=size,
                sampling_ratio=sampling_ratio,
                spatial_scale=1 / stride,
            )
            out = op.ScatterND(out, some, pooled)
        return out

    return {torch.ops.pvt_mm.nms.default: nms_in_onnx, torch.ops.pvt_mm.roi_align.default: roi_align_in_onnx}
