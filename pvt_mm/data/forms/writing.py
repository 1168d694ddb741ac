"""What a run reads, written beside the data: COCO's JSON, or label maps and lists of images."""

import json
import os
import random
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from ...errors import DataError
from ..label_maps import VOID
from .common import BESIDE, Data, Image
from .masks import read_map


def draw_split(data: Data, fraction: float, seed: int) -> None:
    """Gives each image its split, 'train' or 'val', and says how.

    Where the data has both, they stay. Else ``fraction`` of the images, at least one, are drawn for validation. What
    is of another split is left out.

    Raises:
        DataError: There are fewer than two images.
    """
    splits = [image.split for image in data.images]
    kept = [image for image in data.images if image.split in ('train', 'val')]
    drawn = {'train', 'val'} - set(splits)
    if drawn:
        kept = sorted((image for image in data.images if image.split != 'test'), key=lambda image: image.file)
        if len(kept) < 2:
            raise DataError(f'{len(kept)} images are too few: one is needed to train and one to validate')
        number = min(max(1, round(len(kept) * fraction)), len(kept) - 1)
        chosen = random.Random(seed).sample(range(len(kept)), number)
        for index, image in enumerate(kept):
            image.split = 'val' if index in chosen else 'train'
        data.notes.append(f'no split found: {number} of {len(kept)} images validate, drawn with seed {seed}')
    if len(kept) < len(splits):
        data.notes.append(f'{len(splits) - len(kept)} images of no training or validation split are left out')
    data.images = kept


def check_masks(data: Data) -> None:
    """Raises DataError where objects have no mask."""
    bare = [image.file for image in data.images for item in image.objects if not item.get('segmentation')]
    if bare:
        number = sum(len(image.objects) for image in data.images)
        raise DataError(
            f'{len(bare)} of the {number} objects have a box and no mask (first: {bare[0]}): '
            f'--task detection trains on boxes alone'
        )


def write_coco(root: Path, data: Data) -> dict:
    """Writes ``annotations_train.json`` and ``annotations_val.json`` where mmdet does not read the data as it is.

    Returns:
        The settings of the config.
    """
    settings = dict(classes=tuple(data.classes))
    for split in ('train', 'val'):
        if data.files:
            file, folder = data.files[split]
        else:
            file, folder = f'{BESIDE}/annotations_{split}.json', ''
            images = [image for image in data.images if image.split == split]
            _write(root / file, json.dumps(to_coco(images, data.classes)), data.notes)
        settings[f'{split}_data'] = dict(ann_file=file, data_prefix=dict(img=folder))
    return settings


def write_lists(root: Path, data: Data) -> dict:
    """Writes ``train.txt`` and ``val.txt``, each image with the number of its class, where no folders tell the split.

    Returns:
        The settings of the config.
    """
    settings = dict(classes=tuple(data.classes))
    for split in ('train', 'val'):
        if data.files:
            file, folder = data.files[split]
        else:
            file, folder = f'{BESIDE}/{split}.txt', ''
            images = [image for image in data.images if image.split == split]
            lines = [f'{image.file} {data.classes.index(image.objects[0]["name"])}\n' for image in images]
            _write(root / file, ''.join(lines), data.notes)
        settings[f'{split}_data'] = dict(ann_file=file, data_prefix=dict(img_path=folder))
    return settings


def _write(path: Path, text: str, notes: list[str]) -> None:
    if path.is_file() and path.read_text() != text:
        notes.append(f'{path} had another content and was replaced: it counts for configs written before, too')
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def to_coco(images: list[Image], classes: list[str]) -> dict:
    """Images and their objects as COCO's JSON holds them."""
    ids = {name: number for number, name in enumerate(classes, 1)}
    content = dict(images=[], annotations=[], categories=[dict(id=number, name=name) for name, number in ids.items()])
    for image_id, image in enumerate(images, 1):
        content['images'].append(dict(id=image_id, file_name=image.file, width=image.width, height=image.height))
        for item in image.objects:
            ours = dict(id=len(content['annotations']) + 1, image_id=image_id, category_id=ids[item['name']])
            content['annotations'].append({**{key: item[key] for key in item if key != 'name'}, **ours})
    return content


def write_maps(root: Path, data: Data) -> dict:
    """Writes lists of the images, and label maps where mmseg does not read the data as it is.

    Maps of objects are drawn: 0 is the background, larger objects lie below smaller ones.

    Returns:
        The settings of the config.
    """
    settings = _as_they_are(data)
    if settings is None:
        if not data.values:
            data.classes = ['background', *(name for name in data.classes if name != 'background')]
        if len(data.classes) > VOID:
            raise DataError(f'{len(data.classes)} classes are more than the {VOID} that a label map can hold')
        # the whole name of the image: so a.jpg and a.png may both be there, and suffixes may differ
        prefix = dict(img_path=folder_of(data), seg_map_path=f'{BESIDE}/maps')
        settings = dict(img_suffix='', seg_map_suffix='.png', reduce_zero_label=False)
        settings.update(train_data=dict(data_prefix=prefix), val_data=dict(data_prefix=prefix))
        for image in data.images:
            file = root / prefix['seg_map_path'] / f'{os.path.relpath(image.file, prefix["img_path"])}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            labels = _renumber(root, image, data.values) if image.map else draw_map(image, data.classes)
            file.write_bytes(cv2.imencode('.png', labels)[1].tobytes())
        data.notes.append(f'{len(data.images)} label maps were written to {root / BESIDE / "maps"}')
    for split in ('train', 'val'):
        names = [
            os.path.relpath(image.file, settings[f'{split}_data']['data_prefix']['img_path'])
            for image in data.images
            if image.split == split
        ]
        cut = len(settings['img_suffix'])
        lines = [name[: len(name) - cut] for name in names]
        _write(root / BESIDE / f'{split}.txt', '\n'.join(lines) + '\n', data.notes)
        settings[f'{split}_data'] = dict(ann_file=f'{BESIDE}/{split}.txt', **settings[f'{split}_data'])
    return dict(settings, classes=tuple(data.classes))


def folder_of(data: Data) -> str:
    """The innermost folder that holds all images."""
    return os.path.commonpath([os.path.dirname(image.file) for image in data.images])


def _as_they_are(data: Data) -> dict | None:
    """The settings with which mmseg reads the maps of the data; None where it does not."""
    values, last = data.values, len(data.classes)
    reduce_zero_label = values == list(range(1, last + 1)) and 0 in data.void
    if not values or not reduce_zero_label and values != list(range(last)):
        return None
    suffixes = {(Path(image.file).suffix, Path(image.map).suffix) for image in data.images}
    if len(suffixes) > 1:
        return None
    ((img_suffix, seg_map_suffix),) = suffixes
    settings = dict(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, reduce_zero_label=reduce_zero_label)
    for split in ('train', 'val'):
        images = [image for image in data.images if image.split == split]
        folders = [
            os.path.commonpath([os.path.dirname(path) for path in paths])
            for paths in ([image.file for image in images], [image.map for image in images])
        ]
        for image in images:
            file, label_map = (
                os.path.splitext(os.path.relpath(path, folder))[0]
                for path, folder in zip((image.file, image.map), folders)
            )
            if file != label_map:
                return None
        settings[f'{split}_data'] = dict(data_prefix=dict(img_path=folders[0], seg_map_path=folders[1]))
    return settings


def _renumber(root: Path, image: Image, values: list[int]) -> np.ndarray:
    """The label map with 0, 1, 2 ... for these values and 255 for all others."""
    numbers = np.full(256, VOID, np.uint8)
    numbers[values] = range(len(values))
    return numbers[read_map(root / image.map)]


def draw_map(image: Image, classes: list[str]) -> np.ndarray:
    """The (height, width) uint8 label map of the objects of an image; the larger are drawn first."""
    labels = np.zeros((image.height, image.width), np.uint8)
    for item in sorted(image.objects, key=lambda item: -item['area']):
        try:
            mask = decode(item['segmentation'], image.height, image.width)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise DataError(f'{image.file}: the mask of an object ({item["name"]}) cannot be drawn: {error}') from error
        labels[mask] = classes.index(item['name'])
    return labels


def decode(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """The (height, width) bool mask of COCO's polygons or RLE."""
    rle = segmentation
    if isinstance(segmentation, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation['counts'], list):
        rle = coco_mask.frPyObjects(segmentation, height, width)
    return coco_mask.decode(rle).astype(bool)
