"""The structure that every form is read into, and what the readers share."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from glob import iglob
from pathlib import Path

import mmcv
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from ...errors import DataError

BESIDE = 'pvt_mm'  # the folder within the data that holds what was made of it
SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
IMAGE_FOLDERS = ('images', 'image', 'imgs', 'img', 'img_dir', 'jpegimages')
FAULTS = 10  # that are listed

_SPLIT = re.compile(r'(?<![a-z])(trainval|train(?:ing)?|val(?:id|idation)?|test(?:ing)?)(?![a-z])')
_ORIENTATION = 0x0112  # the EXIF tag
Object = dict  # an annotation of COCO: bbox, area, iscrowd, segmentation; its class stands under 'name'


@dataclass
class Image:
    """An image and what is annotated in it.

    Args:
        file: Its path within the data's folder.
        width, height: Its size in pixels, as mmcv decodes it.
        objects: As COCO has them (bbox as x, y, width, height in px), with the class's name under 'name'.
        split: 'train' or 'val', 'test' for what is left out, '' where the data does not tell.
        map: The path of its label map within the data's folder, where it has one.
    """

    file: str
    width: int
    height: int
    objects: list[Object] = field(default_factory=list)
    split: str = ''
    map: str = ''


@dataclass
class Data:
    """What a folder holds.

    Args:
        form: The name of its form.
        images: All images.
        classes: The names of the classes, in the order of their numbers.
        notes: What is to be said.
        files: Where mmdet reads the files as they are: ``(ann_file, image folder)`` of 'train' and 'val'.
        values: Of label maps: the value of each class.
        void: Of label maps: the values to ignore.
    """

    form: str
    images: list[Image]
    classes: list[str]
    notes: list[str] = field(default_factory=list)
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    values: list[int] = field(default_factory=list)
    void: set[int] = field(default_factory=set)


def find_files(root: Path, *suffixes: str) -> list[Path]:
    """All files with these suffixes, in any case, under ``root``, in order; without hidden ones and our own."""
    # glob goes into folders that are links, and leaves out hidden ones
    places = map(Path, iglob('**', root_dir=root, recursive=True))
    return sorted(
        root / place
        for place in places
        if place.suffix.lower() in suffixes and BESIDE not in place.parts and (root / place).is_file()
    )


def split_of(path: str | Path) -> str:
    """The split that a word in the names of a path tells: 'train', 'val', 'test' or ''.

    'a/valid/b.jpg' is of 'val', 'instances_train2017.json' of 'train', 'trainval.txt' of none.
    """
    for part in Path(path).parts:
        if (word := _SPLIT.search(part.lower())) and word[1] != 'trainval':
            return next(split for split in ('train', 'val', 'test') if word[1].startswith(split))
    return ''


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in px as mmcv decodes the image: turned as its EXIF entry says.

    Raises:
        DataError: It is no image.
    """
    try:
        with Pillow.open(path) as image:
            if image.getexif().get(_ORIENTATION, 1) == 1:
                return image.size
        height, width = mmcv.imread(path).shape[:2]
    except (AttributeError, OSError, SyntaxError, UnidentifiedImageError, ValueError) as error:
        raise DataError(f'{path} cannot be read as an image ({error})') from error
    return width, height


def image_folder_index(path: Path) -> int | None:
    """Which part of a path names a folder of images, as in 'images/train/a.jpg'."""
    return next((i for i, part in enumerate(path.parts[:-1]) if part.lower() in IMAGE_FOLDERS), None)


def check_box(x: float, y: float, width: float, height: float) -> list[float]:
    """The box as COCO has it; ValueError where it has no area or a number is none (NaN)."""
    if not (width > 0 and height > 0 and x == x and y == y):
        raise ValueError(f'the box x={x:g} y={y:g} width={width:g} height={height:g} px has no area')
    return [x, y, width, height]


def box_object(name: str, x: float, y: float, width: float, height: float, iscrowd: int = 0) -> Object:
    """An object with a box in px and no mask."""
    return dict(name=name, bbox=check_box(x, y, width, height), area=width * height, iscrowd=iscrowd)


def polygon_object(name: str, polygons: list[list[float]]) -> Object:
    """An object of polygons ``[x1, y1, x2, y2 ...]`` in px; its box is what encloses them."""
    for polygon in polygons:
        if len(polygon) < 6:
            raise ValueError(f'a polygon of {len(polygon) // 2} points has no area')
    xs, ys = ([value for polygon in polygons for value in polygon[axis::2]] for axis in (0, 1))
    x, y = min(xs), min(ys)
    bbox = check_box(x, y, max(xs) - x, max(ys) - y)
    return dict(name=name, bbox=bbox, area=sum(map(_area, polygons)), iscrowd=0, segmentation=polygons)


def _area(polygon: list[float]) -> float:
    """By the shoelace formula."""
    xs, ys = polygon[::2], polygon[1::2]
    return abs(sum(x * y2 - x2 * y for x, y, x2, y2 in zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1]))) / 2


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with a byte order mark or without; DataError where it is none."""
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise DataError(f'{path}: no text in UTF-8 ({error.reason})') from error


def read_json(path: Path):
    """The content of a JSON file; DataError with the line where it is broken."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f'{path}, line {error.lineno}: broken JSON ({error.msg})') from error


def read_names(root: Path) -> list[str]:
    """The names of the classes, one a line, in a file that the usual tools write; none where there is no such file."""
    for name in ('classes.txt', 'class_names.txt', 'labels.txt', 'obj.names'):
        for path in sorted({*root.glob(name), *root.glob(f'*/{name}')}):
            return [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return []


def collect(read: Callable, items) -> Iterator:
    """``read`` of each item, without those that are None; DataError at the end with the faults of all."""
    faults = []
    for item in items:
        try:
            if (found := read(item)) is not None:
                yield found
        except DataError as error:
            faults.append(str(error))
    if faults:
        more = [f'and {len(faults) - FAULTS} more faults of this kind'] if len(faults) > FAULTS else []
        raise DataError('\n'.join([*faults[:FAULTS], *more]))
