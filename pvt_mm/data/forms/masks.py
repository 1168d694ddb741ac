"""Label maps as PNG: the value of a pixel is the number of its class."""

import re
from collections import Counter
from pathlib import Path

import mmcv
import numpy as np

from ...errors import DataError
from ..label_maps import VOID
from .common import (
    SUFFIXES,
    Data,
    Image,
    collect,
    find_files,
    image_folder_index,
    image_size,
    read_names,
    read_text,
    split_of,
)

_MARK = re.compile('[-_.](mask|label|seg|gt)s?$', re.IGNORECASE)  # with which the name of a label map may end
MAP_FOLDERS = ('masks', 'mask', 'annotations', 'labels', 'gt', 'ann_dir', 'segmentationclass')


def read_masks(root: Path) -> Data | None:
    """A folder with images and label maps; None where there is none.

    ``images/x/a.jpg`` belongs to ``masks/x/a.png`` or ``a_mask.png`` (and other usual names of the two folders).
    Folders with train and val in their names tell the split, or the lists of ImageSets/Segmentation. classes.txt names
    the classes.

    Values 0 and 255 alone become 0 and 1; else 255 is ignored. With a name for each value but 0, 0 is the background,
    or is ignored if 'background' is among the names.
    """
    images, maps = {}, {}
    for path in find_files(root, *SUFFIXES):
        file = path.relative_to(root)
        if (index := image_folder_index(file)) is not None:
            images[_key(file, index)] = path
        elif path.suffix.lower() == '.png':
            index = next((i for i, part in enumerate(file.parts[:-1]) if part.lower() in MAP_FOLDERS), None)
            if index is not None:
                maps[_key(file, index)] = path
    for key in [key for key in maps if key not in images]:
        maps.setdefault((*key[:-1], _MARK.sub('', key[-1])), maps.pop(key))
    pairs = {images[key]: maps[key] for key in images if key in maps}
    if not pairs:
        return None
    lists, counts = _read_lists(root), Counter()

    def read(pair: tuple[Path, Path]) -> Image:
        path, label_map = pair
        values, (width, height) = read_map(label_map), image_size(path)
        if values.shape != (height, width):
            raise DataError(f'{label_map} has {values.shape[1]}x{values.shape[0]} px, and {path} {width}x{height}')
        counts.update({int(value): 1 for value in np.unique(values)})
        file = path.relative_to(root)
        split = lists.get(path.stem, 'test') if lists else split_of(file.parent)
        return Image(str(file), width, height, [], split, str(label_map.relative_to(root)))

    data = Data('PNG masks', list(collect(read, pairs.items())), read_names(root))
    for what, number in (
        ('images have no mask', len(images) - len(pairs)),
        ('masks have no image', len(maps) - len(pairs)),
    ):
        if number:
            data.notes.append(f'{number} {what} and are left out')
    _name_values(root, data, sorted(counts))
    return data


def read_map(path: Path) -> np.ndarray:
    """A label map of shape (height, width), as mmseg decodes it.

    Raises:
        DataError: It cannot be decoded, has several channels or values past 255.
    """
    try:
        values = mmcv.imread(path, flag='unchanged', backend='pillow').squeeze()
    except (AttributeError, OSError, SyntaxError, ValueError) as error:
        raise DataError(f'the label map {path} cannot be decoded ({error})') from error
    if values.ndim != 2 or values.max() > VOID:
        raise DataError(
            f'the label map {path} has shape {values.shape} and values up to {values.max()}: write one channel that '
            f'holds the number of the class, 0 to 255'
        )
    return values


def _key(file: Path, index: int) -> tuple:
    return (*file.parts[:index], *file.parts[index + 1 : -1], file.stem)


def _read_lists(root: Path) -> dict[str, str]:
    files = [path for path in find_files(root, '.txt') if path.match('ImageSets/Segmentation/*')]
    lists = {path.stem: path for path in files if path.stem in ('train', 'val')}
    if len(lists) < 2:
        return {}
    return {name: split for split, path in lists.items() for name in read_text(path).split()}


def _name_values(root: Path, data: Data, found: list[int]) -> None:
    """Sets the classes of ``data``, the value of each, and the values to ignore."""
    names, text = data.classes, ', '.join(map(str, found))
    if found == [0, VOID] or found == [VOID]:
        if len(names) not in (0, 2):
            raise DataError(f'{root}: the masks hold 0 and 255 alone, and {len(names)} classes are named: name two')
        data.classes, data.values = names or ['background', 'foreground'], [0, VOID]
        data.notes.append('the masks hold 0 and 255 alone: 255 is the second class')
        return
    data.void, inner = {VOID} & set(found), [value for value in found if value != VOID]
    if not names:
        data.values = inner
        data.classes = [f'class_{value}' for value in inner]
        data.notes.append(f'no classes.txt names the values {text}: edit classes')
    elif max(inner) < len(names):
        data.values = list(range(len(names)))
    elif max(inner) == len(names) and 0 in inner and 'background' not in names:
        data.values, data.classes = list(range(len(names) + 1)), ['background', *names]
        data.notes.append(
            f'the masks hold {text}, and {len(names)} classes are named: 0 is taken for the background. If it is to be '
            f'ignored, set reduce_zero_label = True in the config and take background out of classes'
        )
    elif max(inner) == len(names):
        data.values = list(range(1, len(names) + 1))
        data.void.add(0)
        data.notes.append(f'the masks hold {text}, and {len(names)} classes are named: 0 is ignored')
    else:
        raise DataError(f'{root}: the masks hold {text}, and {len(names)} classes are named ({", ".join(names)})')
