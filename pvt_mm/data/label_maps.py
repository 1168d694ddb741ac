"""The images and label maps of an mmseg dataset against its suffixes and classes."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import mmcv
import numpy as np
from mmengine.dataset import BaseDataset
from PIL import Image

from .findings import Findings, Kind
from .images import read_size
from .names import some
from .parallel import in_parallel

SAMPLE = 32  # label maps to read, of all spread evenly
ROWS = 12  # of the table
VOID = 255  # the label that mmseg's LoadAnnotations gives to a value without a class

IMAGE_ALONE = Kind('map-missing', 'image without a label map', 'ends with FileNotFoundError', True)
MAP_ALONE = Kind('map-alone', 'label map without an image', 'not used', False)
DAMAGED = Kind('map-damaged', 'damaged or truncated label map', 'ends with an error', True)
CHANNELS = Kind('map-channels', 'label map of several channels', 'ends with an error in the loss', True)
PAST_255 = Kind('map-16-bit', 'label map with values outside 0 to 255', 'the low 8 bits are read: 256 is 0', True)
SIZE = Kind(
    'map-size', 'label map of another size than its image', 'labels lie elsewhere, or it ends with an error', True
)
STRAY = Kind('map-class', 'label map with a value that has no class', 'ends with an error in the loss', True)
VOID_ALONE = Kind('map-ignored', 'label map in which all pixels are ignored', 'nothing is learned from it', False)
MASKS = Kind('maps-mask', 'label maps of 0 and 255 alone, or all ignored', 'nothing is left to learn', True)
SHIFTED = Kind(
    'maps-shifted', 'label maps whose classes seem shifted by one', 'the first class is ignored, the last unseen', False
)
UNSEEN = Kind('class-unseen', 'class that no label map holds', 'it is never learned', False)


def check_label_maps(
    part: str, dataset: BaseDataset, loading: list[dict], ignore_index: int, log: Callable[[str], None]
) -> list[str]:
    """Looks for the files of a ``BaseSegDataset`` and reads a sample of its label maps as training would.

    Args:
        part: The dataloader, as the config names it.
        dataset: The dataset, not yet loaded.
        loading: The settings of each LoadAnnotations in its pipeline; without one no label map is read.
        ignore_index: The label that the loss ignores.
        log: Receives what each value of the maps stands for, and what may be wrong.

    Returns:
        A line for each fault.
    """
    pairs = dataset.load_data_list()
    folder, map_folder = dataset.data_prefix.get('img_path'), dataset.data_prefix.get('seg_map_path')
    if not pairs:
        return [f"{part}: no image in {folder} ends with img_suffix='{dataset.img_suffix}'; {_suffixes(folder)}"]
    lost = [pair['img_path'] for pair in pairs if not Path(pair['img_path']).is_file()]
    if lost:  # ann_file names more than the folder has
        return [
            f'{part}: {len(lost)} of the {len(pairs)} images of {dataset.ann_file} are missing with img_suffix='
            f"'{dataset.img_suffix}': {lost[0]}; {_suffixes(folder)}"
        ]
    if map_folder is None or not loading:
        return []
    maps = [pair['seg_map_path'] for pair in pairs]
    lost = [path for path in maps if not Path(path).is_file()]
    if lost:
        return [
            f'{part}: {len(lost)} of the {len(pairs)} images have no label map with seg_map_suffix='
            f"'{dataset.seg_map_suffix}': {lost[0]}; {_suffixes(map_folder)}"
        ]
    for step in loading:
        if step.get('reduce_zero_label') not in (None, dataset.reduce_zero_label):
            return [
                f'{part}: reduce_zero_label is {step["reduce_zero_label"]} in LoadAnnotations and '
                f'{dataset.reduce_zero_label} in the dataset: set it in the dataset and leave it out of LoadAnnotations'
            ]
    if not dataset.metainfo.get('classes'):
        return []
    return _check_sample(part, dataset, pairs, ignore_index, log)


def check_all_label_maps(
    dataset: BaseDataset, ignore_index: int, findings: Findings, log: Callable[[str], None]
) -> None:
    """Reads every label map of a ``BaseSegDataset`` as training would, in parallel.

    Args:
        dataset: The dataset, loaded or not, with images and label maps in folders of this machine.
        ignore_index: The label that the loss ignores.
        findings: Receives the faults.
        log: Receives what each value of the maps stands for.
    """
    pairs, classes = dataset.load_data_list(), dataset.metainfo.get('classes')
    folder = dataset.data_prefix['seg_map_path']
    counts, number = np.zeros(256, int), 0
    look = partial(_look_at_all, meaning=_Meaning.of(dataset, ignore_index))
    for found, some_counts, some_number in in_parallel(look, [_paths(pair) for pair in pairs], 'label maps'):
        findings.update(found)
        counts += some_counts
        number += some_number
    if not dataset.ann_file:  # which may name a part of the files
        alone = {str(path) for path in Path(folder).rglob(f'*{dataset.seg_map_suffix}')}
        for path in sorted(alone - {str(Path(pair['seg_map_path'])) for pair in pairs}):
            findings.add(MAP_ALONE, path)
    if not classes or not number:
        return
    labels = _labels(dataset)
    for kind, text in _look_at_counts(dataset, counts, number, ignore_index):
        findings.add(kind, f'{folder}: {text}', number)
    for label, name in enumerate(classes):
        if not counts[labels == label].any():
            findings.add(UNSEEN, f'{folder}: {name}')
    _log_table(f'the values in the {number} label maps of {folder}', counts, labels, classes, log)


def _suffixes(folder: str) -> str:
    """What the files of a folder end with."""
    counts = Counter(path.suffix for path in Path(folder).rglob('*') if path.is_file())
    return f'{folder} has {some([f"{number} {suffix}" for suffix, number in counts.most_common()]) or "no"} files'


class _Meaning(NamedTuple):
    """What the values of a dataset's label maps stand for."""

    labels: np.ndarray  # of each of the 256 values
    number: int  # of classes
    first: int  # value with a class
    ignore_index: int

    @classmethod
    def of(cls, dataset: BaseDataset, ignore_index: int) -> '_Meaning':
        number = len(dataset.metainfo.get('classes') or range(256))
        return cls(_labels(dataset), number, int(dataset.reduce_zero_label), ignore_index)

    def stray(self, values: np.ndarray) -> int | None:
        """The first of the values that has no class."""
        labels = self.labels[values]
        return next(iter(values[(labels != self.ignore_index) & (labels >= self.number)]), None)


def _labels(dataset: BaseDataset) -> np.ndarray:
    """The label that mmseg's LoadAnnotations gives to each of the 256 values; shape (256,)."""
    labels = np.arange(256)
    if dataset.reduce_zero_label:
        labels[1:255] -= 1
        labels[0] = VOID
    mapped = labels.copy()
    for old, new in (dataset.label_map or {}).items():
        mapped[labels == old] = new
    return mapped


def _paths(pair: dict) -> tuple[str, str]:
    return pair['img_path'], pair['seg_map_path']


def _look(image: str, path: str, meaning: _Meaning) -> tuple[np.ndarray | None, list[tuple[Kind, str]]]:
    """Reads a label map as mmseg does.

    Returns:
        How often it holds each of the 256 values, None where it has no such values, and what is wrong with it.
    """
    try:
        values = mmcv.imread(path, flag='unchanged', backend='pillow').squeeze()
    except FileNotFoundError:
        return None, [(IMAGE_ALONE, 'does not exist')]
    except (AttributeError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return None, [(DAMAGED, f'cannot be decoded ({error})')]
    if values.ndim > 2:
        channels = values.shape[-1]
        return None, [(CHANNELS, f'has {channels} channels: a label map has one, which holds the number of the class')]
    if values.min() < 0 or values.max() > VOID:
        return None, [(PAST_255, f'holds values from {values.min()} to {values.max()}, and mmseg reads 0 to 255')]
    faults = []
    size = read_size(image)
    if size not in (None, values.shape):
        faults.append((SIZE, f'is {_size(values.shape)}, and its image {image} is {_size(size)}'))
    counts = np.bincount(values.ravel().astype(np.uint8), minlength=256)
    seen = np.flatnonzero(counts)
    if (stray := meaning.stray(seen)) is not None:
        faults.append((STRAY, _describe_stray(meaning, stray)))
    if (meaning.labels[seen] == meaning.ignore_index).all():
        faults.append((VOID_ALONE, f'holds {_join(seen)} alone'))
    return counts, faults


def _look_at_all(pairs: list[tuple[str, str]], meaning: _Meaning) -> tuple[Findings, np.ndarray, int]:
    """The faults of some label maps, and how often those that can be read, and how many are, hold each value."""
    findings, total, number = Findings(), np.zeros(256, int), 0
    for image, path in pairs:
        counts, faults = _look(image, path, meaning)
        for kind, text in faults:
            findings.add(kind, f'{path} {text}')
        if counts is not None:
            total += counts
            number += 1
    return findings, total, number


def _look_at_counts(
    dataset: BaseDataset, counts: np.ndarray, number: int, ignore_index: int
) -> Iterator[tuple[Kind, str]]:
    """What is wrong with the values of all label maps together."""
    labels, classes = _labels(dataset), dataset.metainfo['classes']
    values = np.flatnonzero(counts)
    if _is_mask(counts, labels, ignore_index):
        ignored = values[labels[values] == ignore_index]
        yield (
            MASKS,
            f'the {number} label maps hold {_join(values)} alone. Ignored: {_join(ignored)} '
            f'(reduce_zero_label={dataset.reduce_zero_label}). Nothing is left to learn: write the number of its class '
            f'to each pixel',
        )
    elif dataset.reduce_zero_label and len(classes) > 1 and np.array_equal(values[values < VOID], range(len(classes))):
        yield (
            SHIFTED,
            f'the label maps hold the values 0 to {len(classes) - 1}, and with reduce_zero_label=True '
            f'the {len(classes)} classes are 1 to {len(classes)}: {classes[-1]} is never seen. If 0 is {classes[0]}, '
            f'set reduce_zero_label=False',
        )


def _check_sample(
    part: str, dataset: BaseDataset, pairs: list[dict], ignore_index: int, log: Callable[[str], None]
) -> list[str]:
    labels, meaning = _labels(dataset), _Meaning.of(dataset, ignore_index)
    pairs = [_paths(pair) for pair in pairs]
    spread = pairs[:: -(-len(pairs) // SAMPLE)]
    counts, number = np.zeros(256, int), 0
    for image, path in dict.fromkeys([*spread, *pairs]):
        # Where the sample holds 0 and 255 alone, only all maps tell masks of 0 and 255 from a rare class.
        if number >= len(spread) and not _is_mask(counts, labels, ignore_index):
            break
        found, faults = _look(image, path, meaning)
        for kind, text in faults:
            if kind.stops:
                return [f'{part}: the label map {path} {text}']
        counts += found
        number += 1
    faults = list(_look_at_counts(dataset, counts, number, ignore_index))
    if stopping := [text for kind, text in faults if kind.stops]:
        return [f'{part}: {stopping[0]}']
    _log_table(
        f'{part}: the values in {number} of {len(pairs)} label maps', counts, labels, dataset.metainfo['classes'], log
    )
    for _, text in faults:
        log(f'WARNING: {part}: {text}')
    return []


def _is_mask(counts: np.ndarray, labels: np.ndarray, ignore_index: int) -> bool:
    """Whether the maps hold 0 and 255 alone, or only what is ignored."""
    values = np.flatnonzero(counts)
    return set(values) == {0, VOID} or bool((labels[values] == ignore_index).all())


def _join(values: np.ndarray) -> str:
    return ' and '.join(map(str, values))


def _size(shape: Sequence[int]) -> str:
    return 'x'.join(map(str, shape)) + ' px'


def _describe_stray(meaning: _Meaning, value: int) -> str:
    number, first = meaning.number, meaning.first
    way_out = 'Name every class in metainfo.classes'
    if value == number and not first:
        way_out += ', or set reduce_zero_label=True if 0 is no class'
    return (
        f'holds the value {value}, and the {number} classes are {first} to {first + number - 1} '
        f'(reduce_zero_label={bool(first)}). {way_out}'
    )


def _log_table(
    what: str, counts: np.ndarray, labels: np.ndarray, classes: Sequence[str], log: Callable[[str], None]
) -> None:
    """Logs value, class and share of pixels, of the most frequent values."""
    values = np.flatnonzero(counts)
    shown = sorted(values[np.argsort(-counts[values], kind='stable')][:ROWS])
    log(f'{what}, their classes and shares of the pixels')
    for value in shown:
        name = classes[labels[value]] if labels[value] < len(classes) else 'ignored'
        log(f'  {value:3d}  {name:20s} {counts[value] / counts.sum():6.1%}')
    if len(values) > ROWS:
        log(f'  and {len(values) - ROWS} more values')
    unseen = [name for label, name in enumerate(classes) if not counts[labels == label].any()]
    if unseen:
        log(f'  not in these maps: {some(unseen, 10)}')
