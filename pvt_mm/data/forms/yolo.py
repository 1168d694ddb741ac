"""YOLO's txt: a text file for each image, with a line for each object."""

from pathlib import Path

import yaml

from ...errors import DataError
from .common import (
    SUFFIXES,
    Data,
    Image,
    box_object,
    collect,
    find_files,
    image_folder_index,
    image_size,
    polygon_object,
    read_names,
    read_text,
    split_of,
)

MARGIN = 0.01  # outside of 0 to 1, as ultralytics allows for rounding
# what may lie beside label files
NO_LABELS = ('classes.txt', 'labels.txt', 'train.txt', 'val.txt', 'test.txt')


def read_yolo(root: Path) -> Data | None:
    """A folder with YOLO's labels; None where there is none.

    The labels of images/a.jpg are in labels/a.txt or beside the image. A line is ``class x y width height`` (centre
    and size) or ``class x1 y1 x2 y2 x3 y3 ...`` (a polygon), as fractions of the image's size, as it is displayed.
    An image without a file has no objects. data.yaml names the classes, or classes.txt. Folders with train and val
    in their names tell the split, or lists of images that data.yaml names.
    """
    images = find_files(root, *SUFFIXES)
    labels = {image: path for image in images if (path := _label_file(image, root)).is_file()}
    settings = _read_yaml(root)
    names = settings.get('names') or read_names(root)
    if not labels or not (names or any(_looks_right(path) for path in labels.values())):
        return None
    if not names:
        raise DataError(f'{root} has labels of YOLO, and no data.yaml or classes.txt that names its classes: write one')
    if isinstance(names, dict):
        if {*names} != {*map(str, range(len(names)))}:
            raise DataError(f'{root}: the names of data.yaml are not numbered from 0 on: {", ".join(names)}')
        names = [names[str(number)] for number in range(len(names))]
    folders, known = {path.parent for path in labels.values()}, {*labels.values()}
    stray = [path for path in find_files(root, '.txt') if path.parent in folders and path not in known]
    if stray := [path for path in stray if path.name not in NO_LABELS]:
        raise DataError(f'{len(stray)} label files have no image: {stray[0]}')
    lists = _read_lists(root, settings)

    def read(path: Path) -> Image:
        width, height = image_size(path)
        file = path.relative_to(root)
        split = lists.get(path.resolve(), 'test') if lists else split_of(file.parent)
        objects = _read_labels(labels[path], names, width, height) if path in labels else []
        return Image(str(file), width, height, objects, split)

    notes = []
    if len(labels) < len(images):
        notes.append(f'{len(images) - len(labels)} images have no label file: they hold no objects')
    return Data('YOLO txt', list(collect(read, images)), names, notes)


def _label_file(image: Path, root: Path) -> Path:
    file = image.relative_to(root)
    if (index := image_folder_index(file)) is not None:
        parts = file.parts
        return root.joinpath(*parts[:index], 'labels', *parts[index + 1 :]).with_suffix('.txt')
    return image.with_suffix('.txt')


def _looks_right(path: Path) -> bool:
    words = path.read_text(errors='ignore').split('\n', 1)[0].split()
    return len(words) >= 5 and words[0].isdigit()


def _read_yaml(root: Path) -> dict:
    """The content of data.yaml, all of it text: a class may be called no."""
    for path in sorted(find_files(root, '.yaml', '.yml'), key=lambda path: len(path.parts)):  # the outermost first
        try:
            settings = yaml.load(read_text(path), yaml.BaseLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, 'problem_mark', None)
            raise DataError(f'{path}, line {mark.line + 1 if mark else "?"}: broken YAML') from error
        if isinstance(settings, dict) and 'names' in settings:
            return settings
    return {}


def _read_lists(root: Path, settings: dict) -> dict[Path, str]:
    """The split of each image that a list of data.yaml names, as ``train: train.txt``."""
    splits = {}
    for split in ('train', 'val'):
        path = root / str(settings.get(split, ''))
        if path.suffix == '.txt' and path.is_file():
            for number, line in enumerate(read_text(path).splitlines(), 1):
                if not line.strip():
                    continue
                image = (root / line.strip()).resolve()
                if not image.is_file():
                    raise DataError(f'{path}, line {number}: there is no {image}')
                if splits.setdefault(image, split) != split:
                    raise DataError(f'{path}, line {number}: {image} is in both lists')
    return splits if set(splits.values()) == {'train', 'val'} else {}


def _read_labels(path: Path, names: list[str], width: int, height: int) -> list[dict]:
    objects = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            label, *values = map(float, line.split())
            if label not in range(len(names)):
                raise ValueError(f'the class {label:g} is none of 0 to {len(names) - 1}')
            if not all(-MARGIN <= value <= 1 + MARGIN for value in values):
                raise ValueError('a coordinate is outside of 0 to 1')
            name = names[int(label)]
            if len(values) == 4:
                x, y, w, h = values
                objects.append(box_object(name, (x - w / 2) * width, (y - h / 2) * height, w * width, h * height))
            elif len(values) % 2 == 0 and len(values) >= 6:
                polygon = [value * side for value, side in zip(values, [width, height] * (len(values) // 2))]
                objects.append(polygon_object(name, [polygon]))
            else:
                raise ValueError(f'{len(values) + 1} numbers are neither a box (5) nor a polygon (7, 9 ...)')
        except ValueError as error:
            raise DataError(f'{path}, line {number}: {error}') from error
    return objects
