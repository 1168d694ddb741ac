"""The images and label maps of an mmseg dataset against its suffixes and classes."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import mmcv
import numpy as np
from mmengine.dataset import BaseDataset

from .names import some

SAMPLE = 32  # label maps to read, of all spread evenly
ROWS = 12  # of the table
VOID = 255  # the label that mmseg's LoadAnnotations gives to a value without a class


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
    return _check_values(part, dataset, maps, ignore_index, log)


def _suffixes(folder: str) -> str:
    """What the files of a folder end with."""
    counts = Counter(path.suffix for path in Path(folder).rglob('*') if path.is_file())
    return f'{folder} has {some([f"{number} {suffix}" for suffix, number in counts.most_common()]) or "no"} files'


def _read(path: str) -> np.ndarray | str:
    """A label map as mmseg decodes it, or what is wrong with it."""
    try:
        values = mmcv.imread(path, flag='unchanged', backend='pillow').squeeze()
    except (AttributeError, OSError, SyntaxError, ValueError) as error:
        return f'cannot be decoded ({error})'
    if values.ndim != 2:
        return f'has {values.shape[-1]} channels: a label map has one, which holds the number of the class'
    if values.min() < 0 or values.max() > VOID:
        return f'holds values from {values.min()} to {values.max()}, and mmseg reads 0 to 255'
    return values


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


def _check_values(
    part: str, dataset: BaseDataset, maps: list[str], ignore_index: int, log: Callable[[str], None]
) -> list[str]:
    classes, labels = dataset.metainfo['classes'], _labels(dataset)
    spread = maps[:: -(-len(maps) // SAMPLE)]
    counts, number = np.zeros(256, int), 0
    for path in dict.fromkeys([*spread, *maps]):
        # Where the sample holds 0 and 255 alone, only all maps tell masks of 0 and 255 from a rare class.
        if number >= len(spread) and not _is_mask(counts, labels, ignore_index):
            break
        values = _read(path)
        if isinstance(values, str):
            return [f'{part}: the label map {path} {values}']
        found = np.bincount(values.ravel().astype(np.uint8), minlength=256)
        for value in np.flatnonzero(found):
            if labels[value] != ignore_index and labels[value] >= len(classes):
                return [_describe_stray(part, dataset, path, value)]
        counts += found
        number += 1
    if _is_mask(counts, labels, ignore_index):
        values = np.flatnonzero(counts)
        ignored = values[labels[values] == ignore_index]
        return [
            f'{part}: the {number} label maps hold {_join(values)} alone. Ignored: {_join(ignored)} '
            f'(reduce_zero_label={dataset.reduce_zero_label}). Nothing is left to learn: write the number of its class '
            f'to each pixel'
        ]
    _log_table(part, counts, labels, classes, f'{number} of {len(maps)} label maps', log)
    shifted = np.array_equal(np.flatnonzero(counts[:VOID]), np.arange(len(classes)))
    if dataset.reduce_zero_label and shifted and len(classes) > 1:
        log(
            f'WARNING: {part}: the label maps hold the values 0 to {len(classes) - 1}, and with reduce_zero_label=True '
            f'the {len(classes)} classes are 1 to {len(classes)}: {classes[-1]} is never seen. If 0 is {classes[0]}, '
            f'set reduce_zero_label=False'
        )
    return []


def _is_mask(counts: np.ndarray, labels: np.ndarray, ignore_index: int) -> bool:
    """Whether the maps hold 0 and 255 alone, or only what is ignored."""
    values = np.flatnonzero(counts)
    return set(values) == {0, VOID} or bool((labels[values] == ignore_index).all())


def _join(values: np.ndarray) -> str:
    return ' and '.join(map(str, values))


def _describe_stray(part: str, dataset: BaseDataset, path: str, value: int) -> str:
    number, first = len(dataset.metainfo['classes']), int(dataset.reduce_zero_label)
    way_out = 'Name every class in metainfo.classes'
    if value == number and not first:
        way_out += ', or set reduce_zero_label=True if 0 is no class'
    return (
        f'{part}: the label map {path} holds the value {value}, and the {number} classes are {first} to '
        f'{first + number - 1} (reduce_zero_label={dataset.reduce_zero_label}). {way_out}'
    )


def _log_table(
    part: str,
    counts: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    what: str,
    log: Callable[[str], None],
) -> None:
    """Logs value, class and share of pixels, of the most frequent values."""
    values = np.flatnonzero(counts)
    shown = sorted(values[np.argsort(-counts[values], kind='stable')][:ROWS])
    log(f'{part}: the values in {what}, their classes and shares of the pixels')
    for value in shown:
        name = classes[labels[value]] if labels[value] < len(classes) else 'ignored'
        log(f'  {value:3d}  {name:20s} {counts[value] / counts.sum():6.1%}')
    if len(values) > ROWS:
        log(f'  and {len(values) - ROWS} more values')
    unseen = [name for label, name in enumerate(classes) if not counts[labels == label].any()]
    if unseen:
        log(f'  not in these maps: {some(unseen, 10)}')
