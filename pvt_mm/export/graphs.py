"""Models as graphs from a raw image to boxes, label maps or scores.

A graph takes images as OpenCV reads them, uint8 (B, H, W, C), of 3 channels in BGR, resized as its ``meta`` says. Mean,
standard deviation and padding are inside. Everything is a tensor: sizes and batch stay dynamic, and where an image has
less to give than another, the rest has score 0.
"""

import torch
import torch.nn.functional as F
from mmengine.utils import to_2tuple
from torch import Tensor, nn

from ..errors import SettingError
from ..models.layers import average_pool
from .ops import nms, roi_align

# What the published weights of PVT were trained with, for a backbone without a data_preprocessor.
IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])


class Graph(nn.Module):
    """A model whose input is the raw image.

    ``outputs`` are the names of what forward returns, ``task`` says what it is. Images have at least ``min_size``, or
    exactly that where ``is_fixed``. ``is_unguarded`` where torch.export takes cases apart that need not be, as an image
    of one window; the comparison with PyTorch stands for its guards.
    """

    outputs: tuple[str, ...]
    task: str
    is_fixed = False
    is_unguarded = False

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        settings = getattr(model, 'data_preprocessor', None)
        self.min_size = (max(64, getattr(getattr(model, 'backbone', model), 'min_size', 0)),) * 2
        mean, std = IMAGENET
        weights = getattr(model, 'backbone', model).parameters()
        self.channels = next(kernel.shape[1] for kernel in weights if kernel.ndim == 4)  # of the first convolution
        if settings is None and self.channels != 3:
            raise SettingError(
                f'a bare backbone of {self.channels} channels does not say how images are normalised: give it a model '
                'with a data_preprocessor'
            )
        self.divisor, self.pad_value, self.to_rgb = 1, 0.0, True
        if type(settings).__name__ not in ('NoneType', 'BaseDataPreprocessor'):
            mean, std = (
                (settings.mean.flatten().tolist(), settings.std.flatten().tolist())
                if settings._enable_normalize
                else ([0.0], [1.0])
            )
            # by mmdet's name, mmseg's and mmpretrain's
            names = ('_channel_conversion', 'channel_conversion', 'to_rgb')
            self.to_rgb = any(getattr(settings, name, False) for name in names)
            test_cfg = getattr(settings, 'test_cfg', None) or {}  # mmseg pads in testing only if this says so
            if test_cfg.get('size'):
                raise SettingError(
                    f'data_preprocessor.test_cfg.size={test_cfg["size"]} pads images to one size, which a graph for '
                    'every size does not: give size_divisor in its place'
                )
            self.divisor = test_cfg.get('size_divisor') or getattr(settings, 'pad_size_divisor', None) or 1
            self.pad_value = float(getattr(settings, 'pad_value', None) or getattr(settings, 'pad_val', None) or 0)
        self.register_buffer('mean', torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def prepare(self, images: Tensor) -> Tensor:
        """Images (B, H, W, C) as the model takes them: normalised, padded, (B, C, H', W')."""
        x = images.permute(0, 3, 1, 2).float()
        if self.to_rgb and self.channels == 3:
            x = torch.stack([x[:, 2], x[:, 1], x[:, 0]], dim=1)
        x = (x - self.mean) / self.std
        if self.divisor > 1:
            # no -(-side // divisor): ONNX rounds the quotient of negative numbers up
            height, width = ((side + self.divisor - 1) // self.divisor * self.divisor for side in x.shape[2:])
            x = F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]), value=self.pad_value)
        return x


class Maps(Graph):
    """The maps of a backbone."""

    task = 'maps'

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.backbone = getattr(model, 'backbone', model)
        self.outputs = tuple(f'map{i}' for i in self.backbone.out_indices)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.backbone(self.prepare(images))


class Classifier(Graph):
    """The scores of the classes, (B, N), of mmpretrain's ImageClassifier or a backbone that returns logits."""

    task = 'classification'
    outputs = ('scores',)

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.is_bare = not hasattr(model, 'backbone')

    def forward(self, images: Tensor) -> tuple[Tensor]:
        x = self.prepare(images)
        logits = self.model(x) if self.is_bare else self.model.head(self.model.extract_feat(x))
        return (logits.softmax(1),)


class AveragePool(nn.AdaptiveAvgPool2d):
    def forward(self, x: Tensor) -> Tensor:
        return average_pool(x, tuple(self.output_size))


class Segmenter(Graph):
    """The label maps of an EncoderDecoder, or one with heads in a cascade, (B, H, W), or its logits, (B, N, H, W).

    Labels are in uint8, of more than 256 classes in int32.
    """

    task = 'segmentation'

    def __init__(self, model: nn.Module, output: str):
        super().__init__(model)
        self.outputs = (output,)
        self.heads = model.decode_head if isinstance(model.decode_head, nn.ModuleList) else [model.decode_head]
        self.is_slide = model.test_cfg.get('mode', 'whole') == 'slide'
        if self.is_slide:
            self.is_unguarded, self.min_size = True, tuple(model.test_cfg.crop_size)
        elif getattr(self.heads[-1], 'resize', None) is False:  # Trans2Seg on images of one size
            self.is_fixed, self.min_size = True, tuple(model.data_preprocessor.size)
        for parent in list(model.modules()):
            for name, part in parent.named_children():
                if type(part).__name__ == 'Upsample' and part.scale_factor:  # mmseg's takes int() of a dynamic size
                    own = nn.Upsample(None, part.scale_factor, part.mode, part.align_corners)
                    setattr(parent, name, own)
                elif isinstance(part, nn.AdaptiveAvgPool2d) and part.output_size not in (1, (1, 1)):
                    setattr(parent, name, AveragePool(to_2tuple(part.output_size)))

    def forward(self, images: Tensor) -> tuple[Tensor]:
        x = self.prepare(images)
        logits = self._slide(x) if self.is_slide else self._whole(x)
        logits = logits[:, :, : images.shape[1], : images.shape[2]]
        if self.outputs == ('logits',):
            return (logits,)
        if logits.shape[1] == 1:
            return ((logits[:, 0].sigmoid() > self.heads[-1].threshold).to(torch.uint8),)
        return (logits.argmax(1).to(torch.uint8 if logits.shape[1] <= 256 else torch.int32),)

    def _whole(self, x: Tensor) -> Tensor:
        features = self.model.extract_feat(x)
        logits = self.heads[0](features)
        for head in self.heads[1:]:
            logits = head(features, logits)
        logits = logits[0] if isinstance(logits, tuple) else logits  # DANet and EncNet return what they learn by, too
        return F.interpolate(logits, x.shape[2:], mode='bilinear', align_corners=self.model.align_corners)

    def _slide(self, x: Tensor) -> Tensor:
        """The mean of all windows, which are computed as one batch: their number is dynamic, too."""
        height, width = x.shape[2:]
        sizes = self.model.test_cfg.crop_size
        rows, columns = (
            self._places(*lengths, x.device) for lengths in zip((height, width), sizes, self.model.test_cfg.stride)
        )
        windows = x[:, :, rows][..., columns].permute(0, 2, 4, 1, 3, 5)
        logits = self._whole(windows.flatten(0, 2)).unflatten(0, windows.shape[:3])
        logits = logits.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        logits = _add_at(logits, rows.flatten(), height, 2)
        logits = _add_at(logits, columns.flatten(), width, 3)
        counts = [
            _add_at(torch.ones_like(places.flatten(), dtype=x.dtype), places.flatten(), length, 0)
            for places, length in ((rows, height), (columns, width))
        ]
        return logits / (counts[0][:, None] * counts[1])

    @staticmethod
    def _places(length: int, size: int, stride: int, device: torch.device) -> Tensor:
        """The (number, size) places of windows along a side, the last of which ends with it."""
        number = (length - size + stride - 1) // stride + 1
        first = (torch.arange(number, device=device) * stride).clamp(max=length - size)
        return first[:, None] + torch.arange(size, device=device)


def _add_at(x: Tensor, places: Tensor, length: int, dim: int) -> Tensor:
    """Adds up what has one place along ``dim``; ONNX has no index_add."""
    shape = list(x.shape)
    out = x.new_zeros([*shape[:dim], length, *shape[dim + 1 :]])
    view = [1] * x.ndim
    view[dim] = -1
    return out.scatter_add(dim, places.view(view).expand(shape), x)


class Detector(Graph):
    """The best objects of each image, the best first: boxes (B, M, 4), scores (B, M), 0 for none, labels (B, M)."""

    task = 'detection'
    outputs = ('boxes', 'scores', 'labels')
    mask_thr: float | None = None

    def need_levels(self, head: nn.Module) -> None:
        """The coarsest level of a head has more than one row and column: torch.export takes one for another case."""
        largest = max(max(stride) for stride in head.prior_generator.strides)
        self.min_size = tuple(max(low, largest + 1) for low in self.min_size)


class Candidates(nn.Module):
    """The best boxes of each level of a dense head, before non-maximum suppression."""

    def __init__(self, head: nn.Module, settings: dict):
        super().__init__()
        self.head = head
        self.nms_pre = settings.get('nms_pre', -1)
        if self.nms_pre <= 0:
            raise SettingError(f'{type(head).__name__}: test_cfg.nms_pre={self.nms_pre} must be a number of boxes')
        self.score_thr = settings.get('score_thr', 0)
        self.min_size = settings.get('min_bbox_size', -1)

    def forward(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes (B, N, 4) within an image of ``size``, scores (B, N), which are 0 for none, labels and levels."""
        head = self.head
        outs = head(features)
        priors = head.prior_generator.grid_priors([x.shape[2:] for x in outs[0]], device=features[0].device)
        found = []
        for level, (own, *maps) in enumerate(zip(priors, *outs)):
            scores, deltas, *factors = (x.permute(0, 2, 3, 1).flatten(1) for x in maps)
            num_boxes = own.shape[0]
            scores = scores.unflatten(1, (num_boxes, head.cls_out_channels))
            scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(2)[:, :, :-1]
            num_classes = scores.shape[2]
            # never fewer than are asked for
            scores, places = F.pad(scores.flatten(1), (0, self.nms_pre)).topk(self.nms_pre)
            scores = scores * (scores > self.score_thr)
            boxes = (places // num_classes).clamp(max=num_boxes - 1)
            for factor in factors:
                scores = scores * factor.sigmoid().gather(1, boxes)
            deltas = _take(deltas.unflatten(1, (num_boxes, -1)), boxes)
            decoded = head.bbox_coder.decode(own[boxes.flatten()], deltas.flatten(0, 1))
            found.append((decoded.view_as(deltas), scores, places % num_classes, torch.full_like(places, level)))
        boxes, scores, labels, levels = (torch.cat(parts, 1) for parts in zip(*found))
        boxes = _clip(boxes, size)
        if self.min_size >= 0:
            scores = scores * (boxes[..., 2:] - boxes[..., :2] > self.min_size).all(2)
        return boxes, scores, labels, levels


class Suppress(nn.Module):
    """Non-maximum suppression among the boxes of a group, and the best that are left."""

    def __init__(self, test_cfg: dict, place: str = 'model.test_cfg'):
        super().__init__()
        self.max_boxes = test_cfg.get('max_per_img', -1)
        if self.max_boxes <= 0:
            raise SettingError(
                f'{place}.max_per_img={self.max_boxes} must be a number of boxes: a file returns so many'
            )
        settings = test_cfg.get('nms') or dict(iou_threshold=1.0)  # none: each box stays
        kind = settings.get('type', 'nms')
        if kind != 'nms':
            raise SettingError(f'{kind} is no operator of ONNX: test with nms, --cfg-options {place}.nms.type=nms')
        known = ('type', 'iou_threshold', 'class_agnostic', 'split_thr')
        if unknown := sorted(set(settings) - set(known)):
            raise SettingError(f'{place}.nms.{unknown[0]}: a graph knows {", ".join(known)}')
        if 'iou_threshold' not in settings:
            raise SettingError(f'{place}.nms has no iou_threshold')
        self.iou_threshold = settings['iou_threshold']
        self.class_agnostic = settings.get('class_agnostic', False)

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        """Takes boxes (B, N, 4), scores (B, N), 0 for none, and groups (B, N).

        Returns:
            The places of the best among the N, (B, max_boxes), and their scores, 0 for none.
        """
        apart = boxes
        if not self.class_agnostic:  # as mmcv's batched_nms does
            largest = (boxes * (scores > 0)[..., None]).amax((1, 2))
            apart = boxes + (groups * (largest[:, None] + 1))[..., None]
        scores = scores * nms(apart, scores, self.iou_threshold, self.max_boxes)
        scores, places = F.pad(scores, (0, self.max_boxes)).topk(self.max_boxes)
        return places.clamp(max=boxes.shape[1] - 1), scores


class DenseDetector(Detector):
    """A detector with one dense head, as RetinaNet: decoding and non-maximum suppression are in the graph."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        settings = model.bbox_head.test_cfg
        self.need_levels(model.bbox_head)
        self.candidates = Candidates(model.bbox_head, settings)
        self.suppress = Suppress(settings)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.model.extract_feat(self.prepare(images))
        boxes, scores, labels, _ = self.candidates(features, images.shape[1:3])
        places, scores = self.suppress(boxes, scores, labels)
        return _take(boxes, places), scores, labels.gather(1, places)


class RegionDetector(Detector):
    """Faster or Mask R-CNN. ``masks`` (B, M, S, S) are inside the boxes, from 0 to 1."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        head, rpn, settings = model.roi_head, model.test_cfg['rpn'], model.test_cfg['rcnn']
        self.need_levels(model.rpn_head)
        self.candidates = Candidates(model.rpn_head, {**rpn, 'score_thr': 0})
        self.propose = Suppress(rpn, 'model.test_cfg.rpn')
        self.suppress = Suppress(settings, 'model.test_cfg.rcnn')
        self.score_thr = settings['score_thr']
        if head.with_mask:
            self.outputs, self.mask_thr = (*self.outputs, 'masks'), settings.get('mask_thr_binary', 0.5)
            if self.mask_thr < 0:
                raise SettingError(
                    f'model.test_cfg.rcnn.mask_thr_binary={self.mask_thr} asks for masks from 0 to 255: a file returns '
                    'them from 0 to 1, and the runner draws what exceeds a threshold of 0 or more'
                )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        size, head = images.shape[1:3], self.model.roi_head
        features = self.model.extract_feat(self.prepare(images))
        boxes, scores, _, levels = self.candidates(features, size)
        places, scores = self.propose(boxes, scores, levels)
        rois = _take(boxes, places) * (scores > 0)[..., None]

        logits, deltas = head.bbox_head(_extract(head.bbox_roi_extractor, features, rois))
        num_classes, number = logits.shape[1] - 1, rois.shape[1]
        boxes = rois.flatten(0, 1)
        deltas = deltas.view(boxes.shape[0], -1, 4)
        boxes = boxes[:, None].expand_as(deltas)
        boxes = head.bbox_head.bbox_coder.decode(boxes.reshape(-1, 4), deltas.reshape(-1, 4)).view_as(deltas)
        boxes = _clip(boxes.expand(-1, num_classes, -1), size).unflatten(0, (-1, number)).flatten(1, 2)
        found = logits.softmax(1)[:, :-1].unflatten(0, (-1, number))
        found = (found * (found > self.score_thr) * (scores > 0)[..., None]).flatten(1)
        labels = torch.arange(num_classes, device=found.device).repeat(number).expand_as(found)
        places, scores = self.suppress(boxes, found, labels)
        boxes, labels = _take(boxes, places), labels.gather(1, places)
        if not head.with_mask:
            return boxes, scores, labels

        rois = boxes * (scores > 0)[..., None]
        masks = head.mask_head(_extract(head.mask_roi_extractor, features, rois))
        if masks.shape[1] > 1:
            own = labels.flatten()[:, None, None, None].expand(-1, 1, *masks.shape[2:])
            masks = masks.gather(1, own)
        return boxes, scores, labels, masks[:, 0].sigmoid().unflatten(0, (-1, boxes.shape[1]))


class QueryDetector(Detector):
    """DETR, whose queries need no suppression."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.max_boxes = model.test_cfg.get('max_per_img', model.num_queries)
        self.is_unguarded = self.divisor > 1

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        model, head, x = self.model, self.model.bbox_head, self.prepare(images)
        height, width = images.shape[1:3]
        feature = model.extract_feat(x)[-1]
        if self.divisor > 1:  # True in the padding, at the places that nearest interpolation would take
            rows, columns = (
                torch.arange(number, device=x.device) * padded // number >= side
                for number, padded, side in zip(feature.shape[2:], x.shape[2:], (height, width))
            )
            mask = (rows[:, None] | columns).repeat(feature.shape[0], 1, 1)
            position, mask = model.positional_encoding(mask), mask.flatten(1)
        else:
            position, mask = model.positional_encoding(None, input=feature), None
        position = position.flatten(2).transpose(1, 2)
        memory = model.forward_encoder(feature.flatten(2).transpose(1, 2), mask, position)
        queries, _ = model.pre_decoder(**memory)
        states = model.forward_decoder(**queries, memory_mask=mask, memory_pos=position)['hidden_states']
        logits, boxes = (out[-1] for out in head(states[-1:]))
        if head.loss_cls.use_sigmoid:
            scores, places = logits.sigmoid().flatten(1).topk(self.max_boxes)
            labels, places = places % logits.shape[2], places // logits.shape[2]
        else:
            scores, labels = logits.softmax(2)[..., :-1].max(2)
            scores, places = scores.topk(self.max_boxes)
            labels = labels.gather(1, places)
        x, y, w, h = _take(boxes, places).unbind(2)
        boxes = torch.stack(
            [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height], dim=2
        )
        return _clip(boxes, (height, width)), scores, labels


def _take(x: Tensor, places: Tensor) -> Tensor:
    """Rows of ``x`` (B, N, C) at ``places`` (B, M): (B, M, C)."""
    return x.gather(1, places[..., None].expand(-1, -1, x.shape[2]))


def _clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) within an image of a size (height, width)."""
    x, y = (boxes[..., i::2].clamp(0, side) for i, side in enumerate(reversed(size)))
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], -1)


def _extract(extractor: nn.Module, features: tuple[Tensor, ...], boxes: Tensor) -> Tensor:
    """The features of boxes (B, R, 4), as mmdet's SingleRoIExtractor: (B*R, C, size, size)."""
    batch, number, _ = boxes.shape
    images = torch.arange(batch, device=boxes.device, dtype=boxes.dtype)[:, None, None].expand(-1, number, -1)
    rois = torch.cat([images, boxes], 2).flatten(0, 1)
    layers = extractor.roi_layers
    levels = extractor.map_roi_levels(rois, len(layers))
    layer = layers[0]
    return roi_align(
        list(features[: len(layers)]),
        rois,
        levels,
        list(extractor.featmap_strides),
        layer.output_size[0],
        layer.sampling_ratio,
    )


def build_graph(model: nn.Module, part: str = 'model', output: str = 'labels') -> Graph:
    """The graph of a model of mmdet, mmseg or mmpretrain, or of a backbone.

    Args:
        model: In evaluation mode.
        part: 'model', or 'backbone' for the maps of its backbone.
        output: What a segmenter returns, 'labels' or 'logits'.

    Raises:
        SettingError: There is no graph of such a model, or it has a part that none of its operators stands for.
    """
    backbone = getattr(model, 'backbone', model)
    if part == 'backbone' or backbone is model:
        if getattr(backbone, 'num_classes', None) is None:
            return Maps(model)
        if backbone is model:
            return Classifier(model)
        raise SettingError('--part backbone: this one classifies and has no maps; leave --part out')
    kind, head = type(model).__name__, getattr(model, 'bbox_head', None)
    if kind in ('EncoderDecoder', 'CascadeEncoderDecoder') and _is_decoder(model.decode_head):
        return Segmenter(model, output)
    if kind == 'ImageClassifier' and _is_softmax(model.head):
        return Classifier(model)
    if kind == 'DETR':
        return QueryDetector(model)
    if getattr(model, 'roi_head', None) is not None and _is_standard(model):
        return RegionDetector(model)
    if head is not None and not hasattr(model, 'roi_head') and _is_dense(head):
        return DenseDetector(model)
    head = getattr(model, 'head', getattr(model, 'decode_head', head))
    head = head[-1] if isinstance(head, nn.ModuleList) else head
    detail = f' with {type(head).__name__}' if head is not None else ''
    raise SettingError(
        f'{kind}{detail} has no graph yet: docs/deployment.md lists the models that have one. '
        '--part backbone exports its backbone'
    )


def _is_softmax(head: nn.Module | None) -> bool:
    """Whether a head's scores are the softmax of what its forward returns."""
    from mmpretrain.models.heads import ClsHead

    names = ('predict', '_get_predictions')
    return isinstance(head, ClsHead) and all(getattr(type(head), name) is getattr(ClsHead, name) for name in names)


def _is_decoder(heads: nn.Module) -> bool:
    """Whether heads predict what their forward returns, or the first of it, resized: not Mask2Former or PointRend."""
    from mmseg.models.decode_heads import DAHead, EncHead, OCRHead
    from mmseg.models.decode_heads.cascade_decode_head import BaseCascadeDecodeHead
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    known = {kind.predict for kind in (BaseDecodeHead, BaseCascadeDecodeHead, DAHead, EncHead, OCRHead)}
    return all(
        isinstance(head, BaseDecodeHead)
        and type(head).predict in known
        and type(head).predict_by_feat is BaseDecodeHead.predict_by_feat
        for head in (heads if isinstance(heads, nn.ModuleList) else [heads])
    )


def _is_dense(head: nn.Module) -> bool:
    """Whether a head decodes its maps as mmdet's base class does: RetinaNet, ATSS and FCOS, but not GFL."""
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

    names = ('predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
    return isinstance(head, BaseDenseHead) and all(
        getattr(type(head), name) is getattr(BaseDenseHead, name) for name in names
    )


def _is_standard(model: nn.Module) -> bool:
    from mmdet.models.dense_heads import RPNHead
    from mmdet.models.roi_heads import SingleRoIExtractor, StandardRoIHead

    head = model.roi_head
    extractors = [head.bbox_roi_extractor, *([head.mask_roi_extractor] if head.with_mask else [])]
    return (
        type(model.rpn_head) is RPNHead
        and type(head) is StandardRoIHead
        and not head.with_shared_head
        and head.bbox_head.with_reg
        and not head.bbox_head.custom_cls_channels
        and all(type(part) is SingleRoIExtractor for part in extractors)
        and all(layer.aligned and layer.pool_mode == 'avg' for part in extractors for layer in part.roi_layers)
    )
