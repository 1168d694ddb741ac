"""The classes of a config against the categories of a file in COCO's form."""

import json
import mmap
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from difflib import get_close_matches
from io import StringIO
from pathlib import Path

from mmengine.dataset import BaseDataset

from .names import some

# Reading a larger file whole takes seconds and gigabytes (COCO's train2017: 450 MB).
LARGE = 50 * 2**20
# The list of categories of any dataset is smaller.
_LIST_SIZE = 16 * 2**20
# As near as this, two names are one, misspelt: 'Boat' and 'boat', not 'crane' and 'orange'.
NEAR = 0.75


def check_categories(part: str, dataset: BaseDataset, training: bool, log: Callable[[str], None]) -> list[str]:
    """Compares the classes of a ``CocoDataset`` with the categories of its file.

    Args:
        part: The dataloader, as the config names it.
        dataset: The dataset, not yet loaded. With ``training`` it is loaded if its file is small.
        training: Whether it is to train on its objects.
        log: Receives what may be meant.

    Returns:
        A line for each fault.
    """
    path, classes = Path(dataset.ann_file), list(dataset.metainfo['classes'])
    try:
        large = path.stat().st_size > LARGE
        names, objects = _read_large(path) if large else _read(path)
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:  # not JSON, or another JSON
        return [f'{part}: {path} is no file in the form of COCO ({type(error).__name__}: {error})']
    faults = list(_compare(part, path, classes, names))
    if faults:
        return faults
    left_out = [name for name in names if name not in classes]
    if left_out:
        counted = left_out if large else [f'{name} ({objects[name]} objects)' for name in left_out]
        log(f'{part}: the config leaves out {len(left_out)} categories of {path}: {some(counted, 10)}')
    if training and large:
        log(f'{part}: {path} is larger than {LARGE >> 20} MB: its categories were checked, its objects were not')
    elif training:
        try:
            with redirect_stdout(StringIO()):  # pycocotools prints
                dataset.serialize_data = False
                dataset.full_init()
        except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
            return [f'{part}: mmdet cannot read the annotations of {path} ({type(error).__name__}: {error})']
        if not any(not box['ignore_flag'] for image in dataset.data_list for box in image['instances']):
            counts = some([f'{name} ({objects[name]} objects)' for name in names], 10)
            return [
                f'{part}: mmdet keeps no object of {path}, which has {counts or "no categories"}. It leaves out boxes '
                f'that are empty, under 1 px or outside their image, crowds, areas of 0, and images that filter_cfg '
                f'({dataset.filter_cfg}) leaves out'
            ]
    return []


def _read(path: Path) -> tuple[list[str], Counter]:
    """The names of the categories in the order of the file, and the number of objects of each."""
    data = json.loads(path.read_bytes())
    names = {category['id']: category['name'] for category in data['categories']}
    counts = Counter(annotation['category_id'] for annotation in data.get('annotations', []))
    return [c['name'] for c in data['categories']], Counter({name: counts[key] for key, name in names.items()})


def _read_large(path: Path) -> tuple[list[str], Counter]:
    """As :func:`_read`, without parsing the rest of the file, and without the numbers."""
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = re.search(rb'"categories"\s*:\s*(?=\[)', content)
        if start is None:
            raise KeyError('categories')
        text = content[start.end() : start.end() + _LIST_SIZE].decode(errors='ignore')
    categories, _ = json.JSONDecoder().raw_decode(text)
    return [category['name'] for category in categories], Counter()


def _compare(part: str, path: Path, classes: list[str], names: list[str]) -> Iterator[str]:
    """What keeps mmdet from giving each category the label of its class.

    ``CocoDataset`` numbers the categories that it finds in the order of the file. Where one is missing, or the config
    has another order, boxes get the names of other classes.
    """
    found = [name for name in names if name in classes]
    if found == classes:
        return
    lacking = [name for name in classes if name not in names]
    spare = [name for name in names if name not in classes]
    near = {name: match[0] for name in lacking if (match := get_close_matches(name, spare, n=1, cutoff=NEAR))}
    if near:
        pairs = some([f"'{name}' for '{match}'" for name, match in near.items()])
        yield f'{part}: metainfo.classes has {pairs} of {path}: write the names as the file does'
    if strange := [name for name in lacking if name not in near]:
        yield (
            f'{part}: {len(strange)} of the {len(classes)} classes of the config are no categories of {path}: '
            f'{some(strange)}. The file has {some(names, 10)}: set metainfo.classes of every dataset to these'
        )
    if lacking:
        return
    if len(set(classes)) < len(classes):
        yield f'{part}: metainfo.classes names {some(_repeated(classes))} twice'
    elif len(set(found)) < len(found):
        yield f'{part}: {path} has several categories with the name {some(_repeated(found))}: give each its own'
    else:
        yield (
            f'{part}: metainfo.classes has another order than {path}, and mmdet would exchange the names: '
            f'write metainfo.classes={tuple(found)}'
        )


def _repeated(names: list[str]) -> list[str]:
    return [name for name, number in Counter(names).items() if number > 1]
