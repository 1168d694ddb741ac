"""Datasets of mmpretrain with a folder of images for each class: are the classes of training those of validation?"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mmengine.dataset import BaseDataset

from .names import some


def find_classes(dataset: BaseDataset) -> tuple[str, ...]:
    """The folders in the order in which mmpretrain numbers them; empty where a list of the images has the numbers."""
    if dataset.ann_file or not os.path.isdir(dataset.img_prefix):
        return ()
    return tuple(sorted(entry.name for entry in os.scandir(dataset.img_prefix) if entry.is_dir()))


def check_class_folders(found: dict[str, BaseDataset], log: Callable[[str], None] = print) -> list[str]:
    """A line for each fault of datasets on which a run would end, or train or test on other classes.

    Args:
        found: The datasets, without their data, by the dataloaders as the config names them.
        log: Receives the classes that have no image.
    """
    return _compare(found) or [fault for part, dataset in found.items() for fault in _check(part, dataset, log)]


def _compare(found: dict[str, BaseDataset]) -> list[str]:
    """A line for each dataset whose folders are not those of the first: the numbers of its classes would differ."""
    faults = []
    listed = [(part, dataset.img_prefix, find_classes(dataset)) for part, dataset in found.items()]
    listed = [item for item in listed if item[2]]
    for part, place, names in listed[1:]:
        first, root, folders = listed[0]
        added, lacking = sorted(set(names) - set(folders)), sorted(set(folders) - set(names))
        what = [f'has the classes {some(added)} beyond'] if added else []
        what += [f'lacks the classes {some(lacking)} of'] if lacking else []
        if what:
            faults.append(
                f'{part}: {place} {" and ".join(what)} those of {first} in {root}. Folders are numbered in order, '
                'so that labels would be of other classes: give both the same folders, empty ones too'
            )
    return faults


def _check(part: str, dataset: BaseDataset, log: Callable[[str], None]) -> Iterator[str]:
    if dataset.ann_file:
        return
    root, folders, named = Path(dataset.img_prefix), find_classes(dataset), dataset.metainfo.get('classes')
    if not folders:
        yield f'{part}: {root} has no folders of classes: put the images of each class into {root}/CLASS'
        return
    if named and len(named) != len(folders):
        yield (
            f'{part}: {root} has {len(folders)} folders ({some(folders)}), and metainfo.classes of the dataset '
            f'{len(named)} names ({some(named)}): name each, in the alphabetical order of the folders'
        )
    empty = [
        name
        for name in folders
        if not any(dataset.is_valid_file(file) for _, _, files in os.walk(root / name) for file in files)
    ]
    if len(empty) == len(folders):
        yield f'{part}: no folder of {root} has an image ({", ".join(sorted(dataset.extensions))})'
    elif empty:
        log(f'{part}: {root} has no image of {len(empty)} of the {len(folders)} classes: {some(empty)}')
