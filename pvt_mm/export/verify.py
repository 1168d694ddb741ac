"""Compares an exported file with the model in PyTorch, on images."""

from collections.abc import Iterator
from copy import deepcopy
from typing import NamedTuple

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import nn

from ..errors import SettingError
from .files import Run, first_line
from .graphs import IMAGENET, Graph

# What may differ: boxes in pixels; scores; masks, the part of their pixels; label maps, the part of all pixels; maps
# and logits, relative to their largest value.
BOUNDS = dict(boxes=0.1, scores=1e-4, masks=1e-3, labels=1e-4, logits=1e-4, maps=1e-4)
UNITS = dict(boxes='px', masks='of the pixels', labels='of the pixels', logits='of the largest', maps='of the largest')


class Difference(NamedTuple):
    """The largest difference of one kind of output, and how many values (boxes, pixels) were compared."""

    kind: str
    value: float
    number: int

    @property
    def is_small(self) -> bool:
        return self.value <= BOUNDS[self.kind] and self.number > 0

    def __str__(self) -> str:
        unit = UNITS.get(self.kind, '')
        return f'{self.kind}: {self.value:.2g} {unit}'.rstrip() + f' (at most {BOUNDS[self.kind]:g})'


def make_batches(images: list[np.ndarray], graph: Graph) -> Iterator[np.ndarray]:
    """Batches (B, H, W, C) of the images' own sizes, of three quarters of them, and of two images, one mirrored."""
    for image in images:
        height, width = image.shape[:2]
        yield image[None]
        if not graph.is_fixed:
            size = [max(low, side * 3 // 4) for low, side in zip(graph.min_size, (height, width))]
            yield cv2.resize(image, size[::-1]).reshape(1, *size, -1)
    yield np.stack([images[0], images[0][:, ::-1]])


def compare(model: nn.Module, graph: Graph, run: Run, batches: list[np.ndarray]) -> list[Difference]:
    """Runs a file and the model on batches of images.

    Args:
        model: In evaluation mode.
        graph: What the file was made from.
        run: From :func:`pvt_mm.export.files.load`.
        batches: From :func:`make_batches`.
    """
    worst: dict[str, float] = {}
    numbers: dict[str, int] = {}
    for images in batches:
        expected = reference(model, graph, images)
        try:
            found = run(images)
        except Exception as error:  # the runtimes' own types, by version
            size = 'x'.join(map(str, images.shape[1:3]))
            raise SettingError(
                f'the graph of {type(graph.model).__name__} does not run on a batch of {len(images)} images of {size} '
                f'({first_line(error)}): --to torch_export keeps the operators of torch, --part backbone leaves the '
                'heads out'
            ) from error
        if graph.task == 'detection':
            floor = lowest_score(model)
            pairs = [
                compare_objects({k: v[i] for k, v in found.items()}, e, floor, graph.mask_thr)
                for i, e in enumerate(expected)
            ]
            results = [entry for pair in pairs for entry in pair]
        else:
            results = [_compare_arrays(name, found[name], value) for name, value in expected.items()]
        for kind, value, number in results:
            worst[kind] = max(worst.get(kind, 0.0), value)
            numbers[kind] = numbers.get(kind, 0) + number
    return [Difference(kind, worst[kind], numbers[kind]) for kind in worst]


def reference(
    model: nn.Module, graph: Graph, images: np.ndarray
) -> dict[str, np.ndarray] | list[dict[str, np.ndarray]]:
    """What the model itself finds in images of the size that the file gets: outputs by name, or objects by image."""
    inputs = [torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1) for image in images]
    shape = images.shape[1:3]
    meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))
    data, backbone = (
        dict(inputs=inputs, data_samples=_samples(model, meta, len(inputs))),
        getattr(model, 'backbone', model),
    )
    with torch.no_grad():
        if backbone is model:
            mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
            found = model(torch.stack([(image.flip(0) - mean) / std for image in inputs]))
            found = (found.softmax(1),) if graph.task == 'classification' else found
            return {name: value.numpy() for name, value in zip(graph.outputs, found)}
        if graph.task == 'maps':
            found = backbone(model.data_preprocessor(data)['inputs'])
            return {name: value.numpy() for name, value in zip(graph.outputs, found)}
        samples = model.test_step(data)
    if graph.task == 'classification':
        return dict(scores=np.stack([sample.pred_score.numpy() for sample in samples]))
    if graph.task == 'segmentation':
        key = dict(labels='pred_sem_seg', logits='seg_logits')[graph.outputs[0]]
        values = np.stack([sample.get(key).data.numpy() for sample in samples])
        return {graph.outputs[0]: values[:, 0] if key == 'pred_sem_seg' else values}
    objects = [sample.pred_instances for sample in samples]
    names = dict(bboxes='boxes', scores='scores', labels='labels', masks='masks')
    return [{names[key]: np.asarray(value) for key, value in found.items() if key in names} for found in objects]


def _samples(model: nn.Module, meta: dict, number: int) -> list[BaseDataElement]:
    library = type(model).__module__.partition('.')[0]
    if library == 'mmpretrain':
        from mmpretrain.structures import DataSample as kind
    elif library == 'mmseg':
        from mmseg.structures import SegDataSample as kind
    else:
        from mmdet.structures import DetDataSample as kind
    return [kind(metainfo=deepcopy(meta)) for _ in range(number)]


def lowest_score(model: nn.Module) -> float:
    """The score that a detector's objects must exceed."""
    if getattr(model, 'roi_head', None) is not None:
        return model.test_cfg['rcnn']['score_thr']
    return (model.bbox_head.test_cfg or {}).get('score_thr', 0.0)


def compare_objects(
    found: dict[str, np.ndarray], expected: dict[str, np.ndarray], floor: float, mask_thr: float | None = None
) -> list[Difference]:
    """Each object against the other's nearest of its class, both ways.

    Left out is what a rounding error may cross a threshold with: scores near ``floor``, and near the last one of a full
    list.
    """
    found = {key: value[found['scores'] > 0] for key, value in found.items()}
    limit = len(found['scores'])
    boxes, scores, masks, number = 0.0, 0.0, [0, 0], 0
    for ours, theirs in ((found, expected), (expected, found)):
        last = min(ours['scores'].min(initial=1.0), theirs['scores'].min(initial=1.0)) if limit else 0.0
        for i in np.flatnonzero(ours['scores'] > max(floor, last) + BOUNDS['scores']):
            same = np.flatnonzero(theirs['labels'] == ours['labels'][i])
            if not len(same):
                boxes, number = np.inf, number + 1
                continue
            apart = np.abs(theirs['boxes'][same] - ours['boxes'][i]).max(1)
            apart = apart + np.abs(theirs['scores'][same] - ours['scores'][i])  # of equal boxes the one of its score
            nearest = same[apart.argmin()]
            boxes = max(boxes, float(np.abs(theirs['boxes'][nearest] - ours['boxes'][i]).max()))
            scores = max(scores, float(abs(theirs['scores'][nearest] - ours['scores'][i])))
            number += 1
            if ours is found and 'masks' in found:
                mask = paste_mask(found['masks'][i], found['boxes'][i], theirs['masks'].shape[1:]) >= mask_thr
                masks[0] += int((mask != theirs['masks'][nearest]).sum())
                masks[1] += int(theirs['masks'][nearest].sum())
    results = [Difference('boxes', boxes, number), Difference('scores', scores, number)]
    return [*results, Difference('masks', masks[0] / max(1, masks[1]), masks[1])] if 'masks' in found else results


def paste_mask(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (S, S) of values from 0 to 1 in its place, as mmdet pastes it: (H, W)."""
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    pasted, _ = _do_paste_mask(torch.from_numpy(mask)[None, None], torch.from_numpy(box)[None], *size, skip_empty=False)
    return pasted[0].numpy()


def _compare_arrays(name: str, found: np.ndarray, expected: np.ndarray) -> Difference:
    if found.shape != expected.shape:
        raise SettingError(f'{name} is {found.shape} in the file and {expected.shape} in PyTorch')
    kind = 'maps' if name.startswith('map') else name
    if kind == 'labels':
        return Difference(kind, float((found != expected).mean()), expected.size)
    difference = float(np.abs(found - expected).max())
    return Difference(
        kind, difference if kind == 'scores' else difference / float(np.abs(expected).max()), expected.size
    )
