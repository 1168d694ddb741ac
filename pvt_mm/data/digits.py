"""The embedded dataset: scenes of real handwritten digits, for trying everything without a download.

The scans are the 1,797 of scikit-learn's copy of the UCI digits (Alpaydin and Kaynak, 1998). They are written in
COCO's layout and in ADE20K's, for mmdet's and mmseg's own dataset classes, and as crops of one digit in ImageNet's, for
mmpretrain's.
"""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from ..errors import SettingError

DIGITS = tuple('0123456789')
# Bumped when what is written changes, so that what an older version wrote is written anew.
_VERSION = 2
_SPLITS = {'train': ('train2017', 'training'), 'val': ('val2017', 'validation')}  # COCO's and ADE20K's names


def write_digits(root: str | Path, num_train: int = 4800, num_val: int = 100, size: int = 128, seed: int = 0) -> bool:
    """Writes the dataset: ``root/coco``, ``root/ADEChallengeData2016`` and ``root/classes``.

    In COCO's layout (``annotations/instances_train2017.json``, ``train2017/``, and val) every digit has its box,
    area and an RLE mask of what is visible of it; the categories '0' to '9' have the ids 1 to 10. In ADE20K's
    (``images/training``, ``annotations/training``, and validation) each map has 0 for unlabelled (the soft outer
    edges of the strokes), 1 for background and 2 to 11 for the digits, to be read with ``reduce_zero_label=True``.
    In ImageNet's (``classes/train/0`` to ``9``, and val) there is a square crop around each digit of each scene.
    Training and validation scenes use disjoint scans. The same arguments write the same scenes; where they stand
    already, nothing is written.

    Args:
        root: The folder to write to.
        num_train, num_val: Scenes in each split.
        size: Side of a scene in pixels, at least 64.
        seed: Seed of the random number generator.

    Returns:
        Whether something was written.

    Raises:
        ValueError: ``size`` is below 64, or a split would be empty.
        FileExistsError: ``root`` holds something else.
        SettingError: scikit-learn, which holds the scans, is not installed.
    """
    if size < 64:
        raise ValueError(f'size={size} must be at least 64 px')
    if min(num_train, num_val) < 1:
        raise ValueError(f'num_train={num_train} and num_val={num_val} must be at least 1')
    root = Path(root)
    settings = dict(version=_VERSION, num_train=num_train, num_val=num_val, size=size, seed=seed)
    done = root / 'settings.json'
    if done.exists():
        if json.loads(done.read_text()) == settings:
            return False
    elif root.exists() and any(root.iterdir()):
        raise FileExistsError(f'{root} holds something that is not this dataset: name another folder')
    partial = root.with_name(f'{root.name}.partial')  # takes the place of root when it is whole
    shutil.rmtree(partial, ignore_errors=True)

    scans = _load_scans()
    order = np.random.default_rng(seed).permutation(len(scans.images))
    num_val_scans = len(order) // 5
    chosen = {'val': order[:num_val_scans], 'train': order[num_val_scans:]}
    for i, (split, num_scenes) in enumerate({'train': num_train, 'val': num_val}.items()):
        rng = np.random.default_rng([seed, i])
        images, labels = scans.images[chosen[split]], scans.target[chosen[split]]
        _write_split(partial, split, [_scene(rng, images, labels, size) for _ in range(num_scenes)])
    (partial / done.name).write_text(json.dumps(settings))
    shutil.rmtree(root, ignore_errors=True)
    partial.rename(root)
    return True


def _load_scans():
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SettingError(
            'the digits are scans of scikit-learn, which is not installed: pip install "pvt_mm[digits]"'
        ) from None
    return load_digits()


def _scene(rng: np.random.Generator, scans: np.ndarray, labels: np.ndarray, size: int) -> tuple:
    """Draws one scene.

    Args:
        scans: (N, 8, 8) ink from 0 to 16.
        labels: (N,) digits.

    Returns:
        The (size, size, 3) uint8 image, the (size, size) uint8 semantic map and a list of
        (digit, (size, size) bool mask of what is visible).
    """
    image = _texture(rng, size)
    semantic = np.ones((size, size), np.uint8)
    digits = []
    for _ in range(rng.integers(3, 16)):
        side = int(rng.uniform(0.3, 0.5) * size)
        left, top = rng.integers(0, size - side, 2)
        spot = np.s_[top : top + side, left : left + side]
        index = rng.integers(len(scans))
        ink = cv2.resize(scans[index] / 16, (side, side), interpolation=cv2.INTER_CUBIC).clip(0, 1)
        stroke = ink > 1 / 3
        # Squares may overlap a little, so that digits touch and hide some of each other, but not much.
        if any(
            (mask[spot] & stroke).sum() > 0.05 * mask.sum() or mask[spot].sum() > 0.2 * mask.sum() for _, mask in digits
        ):
            continue
        for _, mask in digits:
            mask[spot] &= ~stroke
        mask = np.zeros((size, size), bool)
        mask[spot] = stroke
        digits.append((int(labels[index]), mask))
        colour = _contrasting_colour(rng, image[spot].mean((0, 1)))
        opacity = np.clip(ink * 1.5, 0, 1)[..., None]
        image[spot] = (1 - opacity) * image[spot] + opacity * colour
        semantic[spot][(ink > 0.2) & (semantic[spot] == 1)] = 0
        semantic[spot][stroke] = 2 + labels[index]
    noisy = image + rng.normal(0, 3, image.shape)
    return noisy.clip(0, 255).astype(np.uint8), semantic, digits


def _texture(rng: np.random.Generator, size: int) -> np.ndarray:
    """A (size, size, 3) background: a colour, and noise at several scales; values from 0 to 255."""
    image = np.zeros((size, size, 3))
    for cells, strength in ((3, 18), (10, 12), (40, 8)):
        noise = rng.normal(0, strength, (cells, cells, 1)) + rng.normal(0, strength / 4, (cells, cells, 3))
        image += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    return (image + rng.uniform(40, 215, 3)).clip(0, 255)


def _contrasting_colour(rng: np.random.Generator, background: np.ndarray) -> np.ndarray:
    """A colour whose brightness differs from that of ``background`` by at least 80 of 255."""
    while True:
        colour = rng.uniform(0, 255, 3)
        if abs(colour.mean() - background.mean()) > 80:
            return colour


def _crop(image: np.ndarray, left: float, top: float, width: float, height: float) -> np.ndarray:
    """A square of ``image`` around a box, with a margin and as far inside as it can be."""
    side = min(int(1.3 * max(width, height)), *image.shape[:2])
    x, y = (
        int(np.clip(start + (length - side) / 2, 0, size - side))
        for start, length, size in ((left, width, image.shape[1]), (top, height, image.shape[0]))
    )
    return image[y : y + side, x : x + side]


def _encode(image: np.ndarray) -> bytes:
    return cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def _write_split(root: Path, split: str, scenes: list) -> None:
    coco_name, ade_name = _SPLITS[split]
    coco, ade = root / 'coco', root / 'ADEChallengeData2016'
    folders = [coco / coco_name, ade / 'images' / ade_name, ade / 'annotations' / ade_name]
    classes = [root / 'classes' / split / name for name in DIGITS]
    for folder in folders + classes:
        folder.mkdir(parents=True)
    images, annotations = [], []
    for image_id, (image, semantic, digits) in enumerate(scenes, 1):
        name, (height, width) = f'{image_id:012d}', semantic.shape
        jpg = _encode(image)
        for folder in folders[:2]:
            (folder / f'{name}.jpg').write_bytes(jpg)
        (folders[2] / f'{name}.png').write_bytes(cv2.imencode('.png', semantic)[1].tobytes())
        images.append(dict(id=image_id, file_name=f'{name}.jpg', height=height, width=width))
        for digit, mask in digits:
            rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            crop = _encode(_crop(image, *coco_mask.toBbox(rle)))
            (classes[digit] / f'{name}_{len(annotations) + 1}.jpg').write_bytes(crop)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=digit + 1,
                    bbox=coco_mask.toBbox(rle).tolist(),
                    area=int(coco_mask.area(rle)),
                    iscrowd=0,
                    segmentation=dict(size=[height, width], counts=rle['counts'].decode()),
                )
            )
    (coco / 'annotations').mkdir(exist_ok=True)  # both splits write there
    (coco / 'annotations' / f'instances_{coco_name}.json').write_text(
        json.dumps(
            dict(
                info=dict(description='scenes of handwritten digits'),
                images=images,
                annotations=annotations,
                categories=[dict(id=i + 1, name=name, supercategory='digit') for i, name in enumerate(DIGITS)],
            )
        )
    )
