"""Is a dataset complete and readable? What a long run would stumble over, found before it starts."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ..errors import DataError
from .names import some

# Where the datasets come from, by the class that reads them.
SOURCES = {
    'CocoDataset': 'COCO 2017 is train2017.zip, val2017.zip and annotations_trainval2017.zip of '
    'https://cocodataset.org/#download, unpacked into one folder',
    'ADE20KDataset': 'ADE20K is http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip, unpacked',
    'ImageNet': 'ImageNet-1K is of https://image-net.org/download.php, a folder for each class in train and val',
}

# Images in each split as published.
COCO_SPLITS = {'train2017': 118287, 'val2017': 5000}
ADE20K_SPLITS = {'training': 20210, 'validation': 2000}


def _decode(path: Path, flag: int = cv2.IMREAD_COLOR) -> np.ndarray | None:
    return cv2.imdecode(np.fromfile(path, np.uint8), flag) if path.stat().st_size else None


def _sample(items: list, number: int) -> list:
    """``number`` of the items, evenly spread, the first and the last among them."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(number, len(items))).astype(int))]


def _of(number: int, published: int) -> str:
    return (
        'all'
        if number == published
        else f'a part of the published {published}'
        if number < published
        else (f'more than the published {published}')
    )


def check_coco(root: str | Path, num_decoded: int = 64, log: Callable[[str], None] = print) -> None:
    """Checks COCO 2017 in its standard layout: every image that is annotated is there, the annotations fit the images
    and the 80 categories, and a sample of the images decodes to the size that the annotations tell.

    Args:
        root: The folder with ``annotations``, ``train2017`` and ``val2017``.
        num_decoded: Images of each split to decode.
        log: Receives a line for each split.

    Raises:
        DataError: Training or testing on it would fail.
    """
    from mmdet.datasets import CocoDataset

    problems = []
    for split, published in COCO_SPLITS.items():
        path = Path(root) / 'annotations' / f'instances_{split}.json'
        try:
            data = json.loads(path.read_bytes())
            images = {
                image['id']: {key: image[key] for key in ('file_name', 'height', 'width')} for image in data['images']
            }
            annotations, categories = data['annotations'], {c['id']: c['name'] for c in data['categories']}
            strays = [
                str(a['id']) for a in annotations if a['image_id'] not in images or a['category_id'] not in categories
            ]
        except FileNotFoundError:
            problems.append(f'{path} is missing: {SOURCES["CocoDataset"]}')
            continue
        except (KeyError, TypeError, ValueError) as error:  # not JSON, or another JSON
            problems.append(
                f'{path} cannot be read ({type(error).__name__}: {error}); unpack it again: {SOURCES["CocoDataset"]}'
            )
            continue
        folder = Path(root) / split
        present = {file.name for file in folder.glob('*')}
        log(
            f'{split}: {len(images)} images annotated ({_of(len(images), published)}), '
            f'{len(present)} files in {folder}, {len(annotations)} objects of {len(categories)} categories'
        )
        missing = sorted(image['file_name'] for image in images.values() if image['file_name'] not in present)
        if missing or not images:
            problems.append(
                f'{folder} lacks {len(missing)} of the {len(images)} images of {path.name}: '
                f'{some(missing) or "it names none"}. {SOURCES["CocoDataset"]}'
            )
        lacking = [name for name in CocoDataset.METAINFO['classes'] if name not in categories.values()]
        if lacking:
            problems.append(f'{path} lacks the categories {some(lacking)}')
        if strays:
            problems.append(f'{path}: the annotations {some(strays)} name an image or a category that it does not hold')
        unmasked = [str(a['id']) for a in annotations if not a.get('segmentation')]
        if unmasked:
            problems.append(f'{path}: the annotations {some(unmasked)} have no segmentation, which Mask R-CNN needs')
        for image in _sample([image for image in images.values() if image['file_name'] in present], num_decoded):
            pixels = _decode(folder / image['file_name'])
            if pixels is None:
                problems.append(f'{folder / image["file_name"]} does not decode: fetch it again')
            elif pixels.shape[:2] != (image['height'], image['width']):
                problems.append(
                    f'{folder / image["file_name"]} has {pixels.shape[0]}x{pixels.shape[1]} px, '
                    f'{path.name} says {image["height"]}x{image["width"]}'
                )
    _raise(problems)


def check_ade20k(root: str | Path, num_decoded: int = 64, log: Callable[[str], None] = print) -> None:
    """Checks ADE20K (ADEChallengeData2016): every image has its map, and a sample of both decodes, has one size and
    holds no class past the 150th.

    Args:
        root: The folder with ``images`` and ``annotations``.
        num_decoded: Images of each split to decode, with their maps.
        log: Receives a line for each split.

    Raises:
        DataError: Training or testing on it would fail.
    """
    from mmseg.datasets import ADE20KDataset

    problems = []
    num_classes = len(ADE20KDataset.METAINFO['classes'])
    for split, published in ADE20K_SPLITS.items():
        images, maps = (Path(root) / part / split for part in ('images', 'annotations'))
        image_names, map_names = (
            {file.stem for file in folder.glob(f'*{suffix}')} for folder, suffix in ((images, '.jpg'), (maps, '.png'))
        )
        log(f'{split}: {len(image_names)} images ({_of(len(image_names), published)}), {len(map_names)} maps')
        if not image_names:
            problems.append(f'{images} is missing or has no .jpg: {SOURCES["ADE20KDataset"]}')
            continue
        unmapped = sorted(image_names - map_names)
        if unmapped:
            problems.append(
                f'{maps} lacks the maps of {len(unmapped)} images: {some(unmapped)}. {SOURCES["ADE20KDataset"]}'
            )
        pictureless = sorted(map_names - image_names)
        if pictureless:
            problems.append(
                f'{images} lacks the images of {len(pictureless)} maps: {some(pictureless)}. {SOURCES["ADE20KDataset"]}'
            )
        for name in _sample(sorted(image_names & map_names), num_decoded):
            pixels = _decode(images / f'{name}.jpg')
            labels = _decode(maps / f'{name}.png', cv2.IMREAD_UNCHANGED)
            if pixels is None or labels is None:
                problems.append(f'{images if pixels is None else maps}/{name} does not decode: fetch it again')
            elif labels.ndim != 2 or labels.shape != pixels.shape[:2]:
                problems.append(f'{maps / name}.png is {labels.shape}, its image {pixels.shape[:2]}: not its map')
            elif labels.max() > num_classes:
                problems.append(
                    f'{maps / name}.png holds the class {labels.max()}: '
                    f'0 (other) to {num_classes} are expected. Is it the full ADE20K? {SOURCES["ADE20KDataset"]}'
                )
    _raise(problems)


def _raise(problems: list[str]) -> None:
    if problems:
        raise DataError('\n'.join(problems))
