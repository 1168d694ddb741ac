"""A folder of images for each class."""

from pathlib import Path

from .common import BESIDE, SUFFIXES, Data, Image, collect, find_files, image_size, split_of


def read_classes(root: Path) -> Data | None:
    """``train/CLASS/a.jpg`` and ``val/CLASS/b.jpg``, or ``CLASS/a.jpg`` without a split; None without either."""
    folders = {path.name: split_of(path.name) for path in root.iterdir() if path.is_dir() and path.name != BESIDE}
    folders = {name: split for name, split in folders.items() if not name.startswith('.')}
    depth = 1 if 'train' in folders.values() and all(folders.values()) else 0  # of the class's name

    def read(path: Path) -> Image | None:
        parts = path.relative_to(root).parts
        if len(parts) < depth + 2:
            return None  # beside the folders
        split = folders[parts[0]] if depth else ''
        return Image(path.relative_to(root).as_posix(), *image_size(path), [dict(name=parts[depth])], split)

    images = list(collect(read, find_files(root, *SUFFIXES)))
    if not images:
        return None
    data = Data('folders of classes', images, sorted({image.objects[0]['name'] for image in images}))
    named = {split: name for name, split in folders.items()} if depth else {}
    if {'train', 'val'} <= named.keys():  # mmpretrain reads them as they are
        data.files = {split: ('', named[split]) for split in ('train', 'val')}
    return data
