"""LabelMe: a JSON file beside each image."""

import os
from collections import Counter
from pathlib import Path, PureWindowsPath

from ...errors import DataError
from .common import SUFFIXES, Data, Image, collect, find_files, image_size, polygon_object, read_json, split_of


def read_labelme(root: Path) -> Data | None:
    """A folder with JSON files of LabelMe; None where there is none.

    Polygons and rectangles are read; shapes of one label and ``group_id`` are one object. Other shapes have no area,
    or need LabelMe to draw: they are counted in the notes. Coordinates are px of the image as it is displayed, turned
    by its EXIF entry.
    """
    files = dict(collect(_read, find_files(root, '.json')))
    if not files:
        return None
    left_out = Counter()

    def read(item: tuple[Path, dict]) -> Image:
        path, content = item
        name = PureWindowsPath(str(content.get('imagePath', ''))).as_posix()  # either slash
        # written on another machine, a path may lead nowhere, and the image lie beside its annotations
        places = path.parent / name, path.parent / Path(name).name
        place = next(filter(Path.is_file, places), places[0])
        if not place.is_file():
            raise DataError(f'{path}: its image {place} is missing')
        width, height = image_size(place)
        size = content.get('imageWidth') or width, content.get('imageHeight') or height
        if size != (width, height):
            raise DataError(f'{path}: its size is {size[0]}x{size[1]}, and {place} decodes to {width}x{height} px')
        groups = {}
        for number, shape in enumerate(content['shapes']):
            kind = shape.get('shape_type') or 'polygon'
            if kind not in ('polygon', 'rectangle'):
                left_out[kind] += 1
                continue
            try:
                group = shape.get('group_id')
                key = (shape['label'], number if group is None else f'group {group}')
                groups.setdefault(key, []).append(_polygon(kind, shape['points']))
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f'{path}: shape {number} (from 0): {type(error).__name__}: {error}') from error
        try:
            objects = [polygon_object(label, polygons) for (label, _), polygons in groups.items()]
        except ValueError as error:
            raise DataError(f'{path}: {error}') from error
        file = os.path.relpath(place, root)
        return Image(file, width, height, objects, split_of(os.path.dirname(file)))

    images = list(collect(read, files.items()))
    notes = [f'{number} shapes of the kind {kind} are left out' for kind, number in left_out.items()]
    with_labels = {image.file for image in images}
    bare = [path for path in find_files(root, *SUFFIXES) if str(path.relative_to(root)) not in with_labels]
    if bare:
        notes.append(f'{len(bare)} images have no JSON file and are left out: {bare[0]}')
    names = {item['name'] for image in images for item in image.objects}
    return Data('LabelMe', images, sorted(names), notes)


def _read(path: Path) -> tuple[Path, dict] | None:
    content = read_json(path)
    return (path, content) if isinstance(content, dict) and isinstance(content.get('shapes'), list) else None


def _polygon(kind: str, points: list[list[float]]) -> list[float]:
    if kind == 'rectangle':
        (x1, y1), (x2, y2) = points
        points = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    return [float(value) for x, y in points for value in (x, y)]
