"""Pascal VOC: an XML file for each image."""

import os
import xml.etree.ElementTree as ET
from pathlib import Path

from ...errors import DataError
from .common import SUFFIXES, Data, Image, box_object, collect, find_files, image_size, read_text, split_of


def read_voc(root: Path) -> Data | None:
    """A folder with XML files of Pascal VOC; None where there is none.

    An XML file and its image have one name. ImageSets/Main tells the split, or else the names of folders.

    VOC counts pixels from 1 and includes the last: the box is x from xmin - 1 to xmax, as detectron2 reads it too.
    (mmdet's XMLDataset subtracts 1 from xmax, which makes every box a pixel smaller.) Where a box begins at 0, the
    data counts from 0, and its numbers are the box's edges. Difficult objects become crowds, which mmdet neither
    trains on nor counts.
    """
    annotations = dict(collect(_read, find_files(root, '.xml')))
    if not annotations:
        return None
    images = {}
    for path in find_files(root, *SUFFIXES):
        # masks of the same name lie in folders of their own
        if not path.parent.name.startswith('Segmentation'):
            images.setdefault(path.stem, []).append(path)
    corners = [
        box.findtext(key, '') for xml in annotations.values() for box in xml.iter('bndbox') for key in ('xmin', 'ymin')
    ]
    first = 0 if any(text.strip() in ('0', '0.0') for text in corners) else 1
    folders = {path.parent for path in find_files(root, '.txt') if path.match('ImageSets/Main/*')}
    splits = {}
    for folder in sorted(folders):
        splits |= _read_splits(folder, annotations)

    def read(item: tuple[Path, ET.Element]) -> Image:
        path, xml = item
        places = images.get(path.stem, [])
        shared = [len(os.path.commonpath([place, path])) for place in places]
        places = [place for place, length in zip(places, shared) if length == max(shared)]  # the nearest
        if len(places) != 1:
            raise DataError(f'{path}: {len(places)} images have its name: {", ".join(map(str, places)) or "none"}')
        width, height = image_size(places[0])
        size = tuple(xml.findtext(f'size/{key}') for key in ('width', 'height'))
        if size not in ((None, None), ('0', '0'), (str(width), str(height))):
            raise DataError(
                f'{path}: its size is {size[0]}x{size[1]}, and {places[0]} decodes to {width}x{height} px'
                f'{" (turned by its EXIF entry)" if size == (str(height), str(width)) else ""}'
            )
        objects = []
        for number, item in enumerate(xml.findall('object'), 1):
            try:
                objects.append(_read_object(item, first))
            except (TypeError, ValueError) as error:
                raise DataError(f'{path}: object {number}: {error}') from error
        file = places[0].relative_to(root)
        split = splits.get(path.stem, 'test') if splits else split_of(file.parent)
        return Image(str(file), width, height, objects, split)

    read_images = list(collect(read, annotations.items()))
    notes = ['a box begins at 0: pixels are counted from 0, not from 1 as in VOC'] if not first else []
    names = {item['name'] for image in read_images for item in image.objects}
    return Data('Pascal VOC', read_images, sorted(names), notes)


def _read(path: Path) -> tuple[Path, ET.Element] | None:
    try:
        xml = ET.parse(path).getroot()
    except ET.ParseError as error:
        raise DataError(f'{path}, line {error.position[0]}: broken XML ({error})') from error
    return (path, xml) if xml.tag == 'annotation' else None


def _read_splits(folder: Path, annotations: dict[Path, ET.Element]) -> dict[str, str]:
    """The split of each name, where there are lists for training and validation."""
    lists = {split: folder / f'{split}.txt' for split in ('train', 'val')}
    if not all(path.is_file() for path in lists.values()):
        return {}
    known, splits = {path.stem for path in annotations}, {}
    for split, path in lists.items():
        for number, line in enumerate(read_text(path).splitlines(), 1):
            name = line.strip()
            if not name:
                continue
            if name not in known:
                raise DataError(f'{path}, line {number}: {name} has no XML file')
            if splits.setdefault(name, split) != split:
                raise DataError(f'{path}, line {number}: {name} is in both lists')
    return splits


def _read_object(item: ET.Element, first: int) -> dict:
    left, top, right, bottom = (float(item.findtext(f'bndbox/{key}')) for key in ('xmin', 'ymin', 'xmax', 'ymax'))
    left, top = left - first, top - first
    name = (item.findtext('name') or '').strip()
    if not name:
        raise ValueError('it has no name')
    difficult = int(item.findtext('difficult', '0') or 0)
    return box_object(name, left, top, right - left, bottom - top, iscrowd=difficult)
