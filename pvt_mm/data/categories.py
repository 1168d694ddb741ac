"""The classes of a config against the categories of a file in COCO's form."""

from collections import Counter
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path

from .annotations import Annotations
from .names import some

# As near as this, two names are one, misspelt: 'Boat' and 'boat', not 'crane' and 'orange'.
NEAR = 0.75


def check_categories(
    part: str, path: Path, annotations: Annotations, classes: list[str], log: Callable[[str], None]
) -> list[str]:
    """Compares the classes of a ``CocoDataset`` with the categories of its file.

    Args:
        part: The dataloader, as the config names it.
        path: The file.
        annotations: What it holds.
        classes: The classes of the dataset.
        log: Receives the categories that the config leaves out.

    Returns:
        A line for each fault.
    """
    faults = list(_compare(part, path, classes, annotations.names))
    left_out = [f'{name} ({annotations.objects[name]} objects)' for name in annotations.names if name not in classes]
    if left_out and not faults:
        log(f'{part}: the config leaves out {len(left_out)} categories of {path}: {some(left_out, 10)}')
    return faults


def _compare(part: str, path: Path, classes: list[str], names: list[str]) -> Iterator[str]:
    """What keeps mmdet from giving each category the label of its class.

    ``CocoDataset`` numbers the categories that it finds in the order of the file. Where one is missing, or the config
    has another order, boxes get the names of other classes.
    """
    found = [name for name in names if name in classes]
    if found == classes and not _repeated(found):
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
    if _repeated(found):
        yield f'{part}: {path} has several categories with the name {some(_repeated(found))}: give each its own'
    elif _repeated(classes):
        yield f'{part}: metainfo.classes names {some(_repeated(classes))} twice'
    else:
        yield (
            f'{part}: metainfo.classes has another order than {path}, and mmdet would exchange the names: '
            f'write metainfo.classes={tuple(found)}'
        )


def _repeated(names: list[str]) -> list[str]:
    return [name for name, number in Counter(names).items() if number > 1]
