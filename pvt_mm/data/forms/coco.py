"""COCO's JSON: mmdet reads it as it is."""

from pathlib import Path

from ...errors import DataError
from .common import SUFFIXES, Data, Image, collect, find_files, read_json, split_of


def read_coco(root: Path) -> Data | None:
    """A folder with JSON files in COCO's form, whatever their names; None where there is none.

    A word in the path of a file tells its split. Without a file for training and one for validation, all images are
    of no split.
    """
    found = dict(collect(_read, find_files(root, '.json')))
    preferred = {path: content for path, content in found.items() if path.name.startswith('instances')}
    found = preferred or found  # beside COCO's own captions and keypoints
    if not found:
        return None
    splits, notes = {}, []
    for path, content in found.items():
        split = split_of(path.relative_to(root))
        if split == 'test':
            notes.append(f'{path} is of a test split and is left out')
        elif split in splits:
            raise DataError(f'{splits[split][0]} and {path} are both {split or "without a split"}: keep one in {root}')
        else:
            splits[split] = path, content
    if set(splits) not in ({'train', 'val'}, {''}, {'train'}):
        raise DataError(
            f'{root}: which file trains and which validates? Name one with "train" and the other with "val"'
        )
    data = Data('COCO JSON', [], [], notes)
    for split, (path, content) in splits.items():
        folder = _image_folder(root, path, split, [image['file_name'] for image in content['images']])
        data.files[split] = str(path.relative_to(root)), folder
        images, names = _images(path, content, folder, '' if len(splits) == 1 else split)
        data.images += images
        data.classes = data.classes or names
        if names != data.classes:
            raise DataError(f'{path} has the categories {names}, and the other file {data.classes}: give both the same')
    items = [item for _, content in splits.values() for item in content['annotations']]
    bare = sum(not {'area', 'iscrowd'} <= item.keys() for item in items)
    if bare:
        notes.append(f'{bare} annotations lack area or iscrowd, which mmdet needs: that of the box and 0 are written')
    if bare or len(splits) == 1:
        data.files = {}
    used = {item['name'] for image in data.images for item in image.objects}
    if empty := [name for name in data.classes if name not in used]:
        data.classes = [name for name in data.classes if name in used]
        notes.append(f'categories without an object are left out: {", ".join(empty)}')
    return data


def _complete(item: dict) -> dict:
    if len(item.get('bbox') or ()) == 4:
        item.setdefault('area', item['bbox'][2] * item['bbox'][3])
    item.setdefault('iscrowd', 0)
    return item


def _read(path: Path) -> tuple[Path, dict] | None:
    content = read_json(path)
    lists = isinstance(content, dict) and [content.get(key) for key in ('images', 'annotations', 'categories')]
    return (path, content) if lists and all(isinstance(items, list) for items in lists) else None


def _image_folder(root: Path, path: Path, split: str, names: list[str]) -> str:
    """The folder within ``root`` that holds the images of a file: one of the split's name first."""
    if not names:
        raise DataError(f'{path} has no images')
    folders = {file.parent for file in find_files(root, *SUFFIXES)}
    for place in sorted(folders):
        folders.update(parent for parent in place.parents if parent.is_relative_to(root))
    folders = sorted(
        folders, key=lambda place: (split_of(place.relative_to(root)) != split, place != path.parent, place)
    )
    for place in folders:
        if (place / names[0]).is_file():
            if lost := [name for name in names if not (place / name).is_file()]:
                raise DataError(f'{path}: {len(lost)} of its {len(names)} images are not in {place}: {lost[0]}')
            return str(place.relative_to(root))
    raise DataError(f'{path}: no folder in {root} has its first image, {names[0]}')


def _images(path: Path, content: dict, folder: str, split: str) -> tuple[list[Image], list[str]]:
    try:
        names = {category['id']: category['name'] for category in content['categories']}
        images = {
            image['id']: Image(str(Path(folder, image['file_name'])), image['width'], image['height'], split=split)
            for image in content['images']
        }
    except KeyError as error:
        raise DataError(f'{path}: an image or a category lacks {error}') from error
    for number, item in enumerate(content['annotations']):
        try:
            images[item['image_id']].objects.append(_complete(dict(item, name=names[item['category_id']])))
        except (KeyError, TypeError) as error:
            raise DataError(
                f'{path}: annotation {number} (from 0) has no image_id or category_id that the file knows: {error}'
            ) from error
    return list(images.values()), list(names.values())
