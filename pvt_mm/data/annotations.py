"""Every image and object of a file in COCO's form: what would training with mmdet do with it?"""

import json
import math
import os
import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO

import numpy as np
from mmengine.dataset import BaseDataset
from rich.progress import Progress

from .coco_file import read_lists
from .findings import EXAMPLES, Findings, Kind

# What reading a file that is not in the form of COCO raises.
UNREADABLE = (KeyError, OSError, OverflowError, TypeError, ValueError)
# Bytes of a file that takes longer than two seconds, for which a bar is shown, and images in folders that do.
LARGE, MANY_FILES = 50 * 2**20, 100_000
# What mmdet drops by design is harmless while it is few. One in ten points to a wrong conversion.
MANY = 0.1
# Pixels. pycocotools takes memory for the length of a polygon: no image is as large as this.
FAR = 1e5


def _fails(error: str) -> str:
    return f'ends with {error}'


FILE_BROKEN = Kind('file-broken', 'file that is not in the form of COCO', _fails('an error'), True)
ENTRY_BROKEN = Kind('entry-broken', 'entry that is no object of JSON', _fails('TypeError'), True)
IMAGE_BROKEN = Kind(
    'entry-incomplete',
    'image without a usable id, file_name, height or width',
    _fails('KeyError or TypeError'),
    True,
)
IMAGE_SIZE = Kind('entry-size', 'image of zero or negative height or width', 'mmdet drops all its objects', True)
IMAGE_TWICE = Kind('image-id-twice', 'image whose id another has', 'the last one gets the objects of all', True)
FILE_TWICE = Kind(
    'file-name-twice',
    'image that is listed several times',
    'each entry lacks the objects of the others, which count as background',
    True,
)
IMAGE_SMALL = Kind('image-small', 'image below min_size of filter_cfg', 'mmdet drops it', False)
IMAGE_EMPTY = Kind('image-unlabelled', 'image without objects', 'all of it is background', False)
IMAGE_EMPTIED = Kind('image-emptied', 'image all of whose objects are dropped', 'all of it is background', False)

ID_TWICE = Kind('id-twice', 'object whose id another has', _fails('AssertionError'), True)
ID_BROKEN = Kind('id-broken', 'object whose id, image_id or category_id is a list', _fails('TypeError'), True)
STRAY_IMAGE = Kind('stray-image', 'object of an image that the file lacks', 'mmdet drops it', False)
STRAY_CATEGORY = Kind('stray-category', 'object of a category that the file lacks', 'mmdet drops it', True)
IGNORED = Kind('ignored', 'object marked with ignore', 'mmdet drops it', False)
CROWD = Kind('crowd', 'crowd', 'mmdet keeps it as a region to ignore', False)
NO_ISCROWD = Kind('no-iscrowd', 'object without iscrowd', 'it counts as no crowd', False)
NO_ISCROWD_TESTED = Kind(
    'no-iscrowd-tested', 'object without iscrowd', "validation ends with KeyError: 'iscrowd'", True
)

BOX_BROKEN = Kind('box-broken', 'bbox that is no list of four numbers', _fails('TypeError or ValueError'), True)
BOX_NAN = Kind('box-nan', 'box with NaN', 'mmdet drops the object', True)
BOX_INFINITE = Kind(
    'box-infinite', 'box with an infinite number', 'mmdet drops it, or trains on a box without end', True
)
BOX_NEGATIVE = Kind('box-negative', 'box of negative width or height', 'mmdet drops the object', True)
BOX_ZERO = Kind('box-zero', 'box of zero width or height', 'mmdet drops the object', False)
BOX_OUTSIDE = Kind('box-outside', 'box wholly outside its image', 'mmdet drops the object', False)
BOX_SMALL = Kind('box-small', 'box under 1 px', 'mmdet drops the object', False)
BOX_REACHES_OUT = Kind('box-reaches-out', 'box that reaches out by more than 1 px', 'Resize clips it', False)
BOX_CORNERS = Kind(
    'box-corners',
    'box that is x1, y1, x2, y2 and not x, y, width, height',
    'learns boxes that are too large',
    True,
)
BOX_FRACTIONS = Kind('box-fractions', 'box in fractions of its image', 'mmdet drops it as a box under 1 px', True)
AREA_BROKEN = Kind('area-broken', 'area that is no number', _fails('TypeError'), True)
AREA_ZERO = Kind('area-zero', 'area of zero or less', 'mmdet drops the object', False)

MASK_MISSING = Kind(
    'mask-missing',
    'object without a mask, and the pipeline loads masks',
    _fails("KeyError: 'mask'") + '. Train a detector of boxes: pvt-mm init --task detection, or a config of retinanet',
    True,
)
MASK_BROKEN = Kind('mask-broken', 'segmentation that is no list of polygons and no RLE', _fails('an error'), True)
POLYGON_SHORT = Kind(
    'polygon-short', 'polygons all of an odd number or of less than six values', 'mmdet ignores the object', False
)
POLYGON_PART = Kind(
    'polygon-part', 'object with a polygon of an odd number or of less than six values', 'mmdet drops that part', False
)
POLYGON_FAR = Kind(
    'polygon-far',
    f'polygon with NaN or null, or further out than {FAR:.0f} px',
    'pycocotools takes all memory and is killed',
    True,
)
POLYGON_FRACTIONS = Kind(
    'polygon-fractions', 'object whose polygons are in fractions of its image', 'learns an empty mask', True
)
RLE_INCOMPLETE = Kind(
    'rle-incomplete', 'RLE without usable size or counts', 'mmdet ignores the object, or it ends with an error', True
)
RLE_SIZE = Kind(
    'rle-size', 'RLE of another size than its image', 'ends with ValueError, or learns scrambled masks', True
)
RLE_LENGTH = Kind(
    'rle-length', 'RLE whose counts do not fill its size', 'ends with an error, or learns random masks', True
)
RLE_POLYGONS = Kind(
    'rle-poly2mask',
    'RLE with LoadAnnotations(poly2mask=False)',
    'mmdet ignores the object: set poly2mask=True',
    True,
)

# Kinds that mmdet drops in silence: serious where they are many.
_DROPPED = (BOX_ZERO, BOX_OUTSIDE, BOX_SMALL, AREA_ZERO, STRAY_IMAGE, POLYGON_SHORT)
# Nothing is left of a file without the faulty objects of these: it is to be written again.
WHOLE_FILE = (FILE_BROKEN, BOX_CORNERS, BOX_FRACTIONS)


@dataclass(frozen=True)
class Use:
    """How a dataset uses its file.

    Args:
        classes: Names of the categories that it keeps.
        training: Whether it is to train on its objects.
        masks: Whether its pipeline loads masks.
        poly2mask: Whether it makes bitmaps of them.
        min_size: Shortest side of the images that it keeps, in px.
        drops_empty: Whether it leaves out images without objects.
    """

    classes: tuple[str, ...]
    training: bool = True
    masks: bool = False
    poly2mask: bool = True
    min_size: float = 0
    drops_empty: bool = False

    @classmethod
    def of(cls, dataset: BaseDataset, loading: list[dict], training: bool) -> 'Use':
        """That of a ``CocoDataset``; ``loading`` holds the settings of each LoadAnnotations in its pipeline."""
        filters = {} if dataset.test_mode else dataset.filter_cfg or {}
        with_mask = [step for step in loading if step.get('with_mask')]
        return cls(
            classes=tuple(dataset.metainfo['classes']),
            training=training and bool(loading),
            masks=bool(with_mask),
            poly2mask=all(step.get('poly2mask', True) for step in with_mask),
            min_size=filters.get('min_size', 0),
            drops_empty=filters.get('filter_empty_gt', False),
        )


@dataclass
class Annotations:
    """What a file holds.

    Args:
        names: The categories in the order of the file.
        objects: The number of objects of each category.
        trained: For each object of the file, whether mmdet trains on it: crowds and what it drops are left out.
        sizes: Height and width of each image whose entry has them, in px, by its file name.
        bad_images, bad_objects: For each entry of the file, whether it would end a run.
        findings: All faults.
    """

    names: list[str] = field(default_factory=list)
    objects: Counter = field(default_factory=Counter)
    sizes: dict[str, tuple[float, float]] = field(default_factory=dict)
    trained: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    bad_images: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    bad_objects: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    findings: Findings = field(default_factory=Findings)


def check_annotations(path: Path, use: Use) -> Annotations:
    """Checks each image and object of a file in COCO's form.

    Raises:
        One of ``UNREADABLE``: The file cannot be read, or has no usable list of categories.
    """
    images, objects, categories = _Images(), _Objects(use), None
    with _open(path) as file:
        for name, entries in read_lists(file):
            if name == 'images':
                images.read(entries)
            elif name == 'annotations':
                objects.read(entries)
            elif name == 'categories':
                categories = {entry['id']: entry['name'] for entry in entries}
                if not all(isinstance(text, str) for text in categories.values()):
                    raise TypeError('the name of a category is no text')
    if categories is None:
        raise KeyError('categories')
    result = Annotations([*categories.values()], sizes=images.sizes)
    images.judge(use)
    objects.judge(images, categories)
    named = [categories.get(key) for key in objects.categories]
    result.objects = Counter(named)
    result.trained = objects.trained & np.array([name in use.classes for name in named], bool)
    for rows, describe, total in (
        (images.faults, images.describe, len(images.ids)),
        (objects.faults, objects.describe, len(objects.ids)),
    ):
        for kind, faulty in rows.items():
            if use.training and kind in _DROPPED and len(faulty) > MANY * total:
                kind = kind._replace(effect=f'{kind.effect}, and they are many', stops=True)
            for row in faulty[: EXAMPLES - 1]:
                result.findings.add(kind, f'{path.name}: {describe(row)}')
            if len(faulty) >= EXAMPLES:
                last = faulty[EXAMPLES - 1]
                result.findings.add(kind, f'{path.name}: {describe(last)}', len(faulty) - EXAMPLES + 1)
    result.bad_images = _mark(images.faults, len(images.ids))
    result.bad_objects = _mark(objects.faults, len(objects.ids))
    if result.bad_images.any():
        result.bad_objects |= (objects.rows < 0) | result.bad_images[objects.rows]
    return result


def is_large(dataset: BaseDataset | None) -> bool:
    """Whether the annotation file of a dataset, or its folders of classes, take more than seconds."""
    file, root = (Path(getattr(dataset, key, None) or '') for key in ('ann_file', 'img_prefix'))
    if root != Path() and not file.is_file():
        return any(islice(root.glob('*/*'), MANY_FILES, None))
    return file.is_file() and file.stat().st_size > LARGE


def write_cleaned(path: Path, folder: Path, annotations: Annotations) -> Path:
    """Writes a copy of a file without the entries that ``annotations`` marks as bad, and returns its place.

    Processes that do so at once write the same, each to a file of its own that it then gives the name.
    """
    bad = dict(images=annotations.bad_images, annotations=annotations.bad_objects)
    # two files of one name, in two folders, are told apart
    target = folder.absolute() / f'{path.stem}_{zlib.crc32(str(path.absolute()).encode()):08x}.json'
    folder.mkdir(parents=True, exist_ok=True)
    with open(path, 'rb') as file, NamedTemporaryFile('w', dir=folder, suffix='.part', delete=False) as copy:
        for number, (name, entries) in enumerate(read_lists(file)):
            kept = (entry for row, entry in enumerate(entries) if name not in bad or not bad[name][row])
            copy.write(f'{"," if number else "{"}\n{json.dumps(name)}: [')
            for row, entry in enumerate(kept):
                copy.write(f'{"," if row else ""}\n{json.dumps(entry)}')
            copy.write(']')
        copy.write('}\n')
    os.replace(copy.name, target)
    return target


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for reading, with a progress bar where it is large."""
    size = path.stat().st_size
    with open(path, 'rb') as file, Progress(transient=True, disable=size < LARGE) as progress:
        yield progress.wrap_file(file, size, description=f'reading {path.name}')


def _mark(faults: dict[Kind, Sequence[int]], number: int) -> np.ndarray:
    bad = np.zeros(number, bool)
    for kind, rows in faults.items():
        if kind.stops:
            bad[rows] = True
    return bad


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _key(value: Any) -> Any:
    return value if isinstance(value, Hashable) else None


class _Images:
    """The images of a file: a row for each entry."""

    def __init__(self):
        self.ids, self.names, self.row_of, self.sizes = [], [], {}, {}
        self.heights, self.widths = array('d'), array('d')
        self.faults: dict[Kind, Sequence[int]] = defaultdict(list)

    def read(self, entries: Iterator[Any]) -> None:
        for row, entry in enumerate(entries):
            height = width = math.nan
            if not isinstance(entry, dict):
                self.faults[ENTRY_BROKEN].append(row)
                entry = {}
            else:
                height, width = entry.get('height'), entry.get('width')
                usable = isinstance(entry.get('file_name'), str) and _is_number(height) and _is_number(width)
                if not usable or not isinstance(entry.get('id'), Hashable) or 'id' not in entry:
                    self.faults[IMAGE_BROKEN].append(row)
                    height = width = math.nan
                elif height > 0 and width > 0:
                    self.sizes[entry['file_name']] = height, width
            self.ids.append(_key(entry.get('id')))
            self.names.append(_key(entry.get('file_name')))
            self.heights.append(height)
            self.widths.append(width)

    def judge(self, use: Use) -> None:
        self.row_of = {key: row for row, key in enumerate(self.ids) if key is not None}
        for kind, keys in ((IMAGE_TWICE, self.ids), (FILE_TWICE, self.names)):
            counts = Counter(keys)
            if rows := [row for row, key in enumerate(keys) if key is not None and counts[key] > 1]:
                self.faults[kind] = rows
        sides = np.minimum(self.heights, self.widths)
        self._add(IMAGE_SIZE, ~(sides > 0) & ~np.isnan(sides))
        self._add(IMAGE_SMALL, (sides > 0) & (sides < use.min_size))

    def judge_empty(self, use: Use, in_file: np.ndarray, kept: np.ndarray) -> None:
        """Looks for images without objects: (N,) numbers of objects in the file, and of those that mmdet keeps."""
        empty = IMAGE_EMPTY._replace(effect='mmdet drops it (filter_empty_gt)') if use.drops_empty else IMAGE_EMPTY
        good = ~_mark(self.faults, len(self.ids))
        self._add(empty, good & (in_file == 0))
        self._add(IMAGE_EMPTIED, good & (in_file > 0) & (kept == 0))

    def _add(self, kind: Kind, faulty: np.ndarray) -> None:
        if faulty.any():
            self.faults[kind] = np.flatnonzero(faulty)

    def describe(self, row: int) -> str:
        return f'image {self.ids[row]} ({self.names[row]})' if self.ids[row] is not None else f'images[{row}]'


class _Objects:
    """The objects of a file: a row for each entry of its annotations."""

    def __init__(self, use: Use):
        self.use = use
        self.ids, self.images, self.categories = [], [], []
        self.boxes, self.areas = array('d'), array('d')
        self.crowd, self.usable = bytearray(), bytearray()
        self.masks: dict[Kind, list[int]] = defaultdict(list)
        self.rle_rows, self.rle_sizes = array('q'), array('d')
        self.faults: dict[Kind, Sequence[int]] = defaultdict(list)
        self.rows = self.trained = np.zeros(0, int)

    def read(self, entries: Iterator[Any]) -> None:
        for row, entry in enumerate(entries):
            if isinstance(entry, dict):
                self._read(row, entry)
            else:
                self.faults[ENTRY_BROKEN].append(row)
                self._append({}, False, _NO_BOX, math.nan)

    def _append(self, entry: dict, usable: bool, box: array, area: float) -> None:
        self.ids.append(_key(entry.get('id')))
        self.images.append(_key(entry.get('image_id')))
        self.categories.append(_key(entry.get('category_id')))
        self.boxes.extend(box)
        self.areas.append(area)
        self.usable.append(usable)
        self.crowd.append(bool(entry.get('iscrowd')))

    def _read(self, row: int, entry: dict) -> None:
        box, area, usable = _NO_BOX, math.nan, False
        wanted = _KEYS[:3] if entry.get('ignore') else _KEYS
        missing = [key for key in wanted if key not in entry]
        for key in missing:
            self.faults[Kind(f'no-{key}', f'object without {key}', _fails(f"KeyError: '{key}'"), True)].append(row)
        if any(not isinstance(entry.get(key), Hashable) for key in _KEYS[:3]):
            self.faults[ID_BROKEN].append(row)
        if entry.get('ignore'):
            self.faults[IGNORED].append(row)
        elif not missing:
            usable = _is_number(entry['area'])
            if usable:
                area = entry['area']
            else:
                self.faults[AREA_BROKEN].append(row)
            try:
                box = array('d', entry['bbox'])
                is_box = isinstance(entry['bbox'], list) and len(box) == 4
            except (OverflowError, TypeError, ValueError):
                is_box = False
            if not is_box:
                box, usable = _NO_BOX, False
                self.faults[BOX_BROKEN].append(row)
            if 'iscrowd' not in entry:
                self.faults[NO_ISCROWD if self.use.training else NO_ISCROWD_TESTED].append(row)
            if self.use.masks:
                self._read_mask(row, entry.get('segmentation'), bool(entry.get('iscrowd')))
        self._append(entry, usable, box, area)

    def _read_mask(self, row: int, mask: Any, crowd: bool) -> None:
        if not mask:
            self.masks[MASK_MISSING].append(row)
        elif isinstance(mask, list):
            if kind := _judge_polygons(mask):
                self.masks[kind].append(row)
        elif not self.use.poly2mask:
            if not crowd:
                self.masks[RLE_POLYGONS].append(row)
        elif not isinstance(mask, dict):
            self.masks[MASK_BROKEN].append(row)
        else:
            size, length = _measure_rle(mask)
            if size is None:
                self.masks[RLE_INCOMPLETE].append(row)
            elif length != size[0] * size[1]:
                self.masks[RLE_LENGTH].append(row)
            else:
                self.rle_rows.append(row)
                self.rle_sizes.extend(size)

    def judge(self, images: _Images, categories: dict) -> None:
        """Judges what needs the images and categories, which may follow in the file."""
        self.rows = np.array([images.row_of.get(key, -1) for key in self.images], int)
        known = np.array([key in categories for key in self.categories], bool)
        crowd, usable = (np.frombuffer(flags, np.uint8).astype(bool) for flags in (self.crowd, self.usable))
        whole = np.array([key is not None for key in self.images], bool)
        self._add(STRAY_IMAGE, (self.rows < 0) & whole)
        self._add(STRAY_CATEGORY, ~known & np.array([key is not None for key in self.categories], bool))
        seen: set = set()
        if rows := [row for row, key in enumerate(self.ids) if key in seen or key is not None and seen.add(key)]:
            self.faults[ID_TWICE] = rows
        kept = usable & (self.rows >= 0)
        if len(images.ids):
            sizes = np.stack([images.widths, images.heights], 1)[self.rows]
            kept = self._judge_boxes(kept & (sizes > 0).all(1), sizes) & known
            self._judge_masks(kept, sizes)
            in_file, left = (
                np.bincount(self.rows[chosen], minlength=len(images.ids)) for chosen in (self.rows >= 0, kept)
            )
            images.judge_empty(self.use, in_file, left)
            small = np.minimum(images.heights, images.widths) < self.use.min_size
            kept &= ~small[self.rows]
        self._add(CROWD, crowd & usable)
        ignored = crowd.copy()
        for kind in (POLYGON_SHORT, RLE_POLYGONS, RLE_INCOMPLETE):
            ignored[self.faults.get(kind, [])] = True
        self.trained = kept & ~ignored

    def _judge_boxes(self, usable: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Judges the boxes that are numbers, and returns which mmdet keeps; shape (N,)."""
        boxes = np.frombuffer(self.boxes).reshape(-1, 4)
        start, extent = boxes[:, :2], boxes[:, 2:]
        with np.errstate(invalid='ignore'):
            end = start + extent
            nan, infinite = np.isnan(boxes).any(1), np.isinf(boxes).any(1)
            tests = {
                BOX_NAN: nan,
                BOX_INFINITE: infinite,
                BOX_NEGATIVE: (extent < 0).any(1),
                BOX_ZERO: (extent == 0).any(1),
                BOX_OUTSIDE: ((start >= sizes) | (end <= 0)).any(1),
                BOX_SMALL: (extent < 1).any(1),
                AREA_ZERO: np.frombuffer(self.areas) <= 0,
            }
            whole_file = None
            good = usable & ~nan & ~infinite & (extent > 0).all(1)
            if good.any():
                if _mean((start >= 0).all(1) & (end <= 2).all(1) & (extent <= 1).all(1), good) > 0.95:
                    whole_file, tests = BOX_FRACTIONS, {**tests, BOX_SMALL: np.zeros_like(good)}
                elif (
                    _mean((extent > start).all(1) & (extent <= sizes + 1).all(1), good) > 0.95
                    and _mean((end > sizes + 1).any(1), good) > 0.2
                ):
                    whole_file = BOX_CORNERS
            kept = usable.copy()
            for kind, test in tests.items():
                self._add(kind, kept & test)
                kept &= ~test
            if whole_file:
                self._add(whole_file, good)
            else:
                self._add(BOX_REACHES_OUT, kept & ((start < -1) | (end > sizes + 1)).any(1))
        return kept

    def _judge_masks(self, kept: np.ndarray, sizes: np.ndarray) -> None:
        """Adds the faults of the masks that mmdet loads: those of the objects that it keeps."""
        for kind, rows in self.masks.items():
            if rows := [row for row in rows if kept[row]]:
                self.faults[kind] = rows
        rows = np.frombuffer(self.rle_rows, np.int64)
        differs = (np.frombuffer(self.rle_sizes).reshape(-1, 2) != sizes[rows][:, ::-1]).any(1)
        if (differs & kept[rows]).any():
            self.faults[RLE_SIZE] = rows[differs & kept[rows]]

    def _add(self, kind: Kind, faulty: np.ndarray) -> None:
        if faulty.any():
            self.faults[kind] = np.flatnonzero(faulty)

    def describe(self, row: int) -> str:
        return f'annotation {self.ids[row]}' if self.ids[row] is not None else f'annotations[{row}]'


_KEYS = ('id', 'image_id', 'category_id', 'bbox', 'area')
_NO_BOX = array('d', [math.nan] * 4)


def _mean(test: np.ndarray, chosen: np.ndarray) -> float:
    return test[chosen].mean()


def _judge_polygons(polygons: list) -> Kind | None:
    """What is wrong with the polygons of an object: lists of x, y, x, y ... in px."""
    short, largest = 0, -math.inf
    try:
        for polygon in polygons:
            if len(polygon) % 2 or len(polygon) < 6:  # mmdet drops it, whatever it holds
                short += 1
                continue
            largest = max(largest, *polygon)
            if not math.isfinite(sum(polygon)) or largest > FAR or min(polygon) < -FAR:
                return POLYGON_FAR
    except (OverflowError, TypeError):
        nulls = any(isinstance(polygon, list) and None in polygon for polygon in polygons)
        return POLYGON_FAR if nulls else MASK_BROKEN  # numpy makes NaN of null
    if short:
        return POLYGON_SHORT if short == len(polygons) else POLYGON_PART
    return POLYGON_FRACTIONS if largest <= 1 else None


def _measure_rle(mask: dict) -> tuple[tuple[int, int] | None, int]:
    """Height and width of an RLE, None where they are no such, and the number of pixels that its counts cover."""
    size, counts = mask.get('size'), mask.get('counts')
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) for side in size):
        return None, 0
    try:
        if isinstance(counts, list):
            return tuple(size), sum(counts) if min(counts, default=0) >= 0 else -1
        return tuple(size), _sum_compressed(counts)
    except (AttributeError, TypeError, UnicodeEncodeError):
        return None, 0


def _sum_compressed(counts: str) -> int:
    """The sum of the counts of a compressed RLE, as rleFrString of pycocotools reads them."""
    values = np.frombuffer(counts.encode('ascii'), np.uint8).astype(np.int64) - 48
    if not len(values) or values.min() < 0 or values.max() > 63 or values[-1] & 32:
        return -1
    # Each number is 5 bits a character, the lowest first; 32 says that it goes on, 16 in the last is the sign.
    first = np.flatnonzero(np.r_[True, values[:-1] & 32 == 0])
    position = np.arange(len(values)) - np.repeat(first, np.diff(np.r_[first, len(values)]))
    if position.max() > 6:
        return -1
    numbers = np.add.reduceat((values & 31) << 5 * position, first)
    last = np.r_[first[1:], len(values)] - 1
    numbers -= np.where(values[last] & 16, 1 << 5 * (position[last] + 1), 0)
    # From the fourth on, a number is the difference to the one two before it.
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return int(numbers.sum()) if numbers.min() >= 0 else -1
