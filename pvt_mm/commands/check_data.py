"""Looks at all data of a config: every annotation and image, and what training would do with it.

Prints a table of what is wrong. Exits with 1 where something in it would end a run. docs/checks.md explains it.
"""

import argparse
import json
import os.path as osp
import sys
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config, DictAction
from rich.console import Console
from rich.table import Table

from ..data.agreement import Found, find_datasets
from ..data.annotations import FILE_BROKEN, UNREADABLE, Use, check_annotations
from ..data.categories import check_categories
from ..data.class_folders import check_class_folders
from ..data.findings import Findings, Kind
from ..data.images import check_images
from ..data.label_maps import check_all_label_maps
from ..errors import SettingError
from .launch import CONFIG_HELP, LOADERS, one_line_errors, read_config, set_data_root

SETTING = Kind('setting', 'dataset that cannot be built', 'ends before it starts', True)
CLASSES = Kind('classes', 'class that does not fit the file', 'ends, or boxes get the names of other classes', True)
FOLDER = Kind('folder', 'folder that cannot be listed', 'ends before it starts', True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument(
        '--decode',
        choices=['none', 'sample', 'all'],
        default='sample',
        help='images to decode, beside the header of each (default: sample)',
    )
    parser.add_argument('--json', help='file to write the table to as well')
    parser.add_argument('--data-root', help="folder of the dataset, in place of the config's")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help="settings that override the config's")
    return parser.parse_args()


def find_faults(cfg: Config, decode: str, log: Callable[[str], None] = print) -> Findings:
    """The faults of all datasets of a config that are in COCO's form, in mmseg's or in folders of classes.

    Args:
        cfg: The config.
        decode: Images to decode: ``'none'``, ``'sample'`` or ``'all'``.
        log: Receives what is looked at.

    Raises:
        SettingError: The config has no such dataset.
    """
    findings, sizes, done, folders = Findings(), {}, set(), {}
    head = cfg.get('model', {}).get('decode_head') or {}
    ignore_index = (head[0] if isinstance(head, list) else head).get('ignore_index', 255)
    datasets = list(find_datasets(cfg, *LOADERS))
    if not datasets:
        raise SettingError(
            "no dataset of the config is in COCO's form, mmseg's or class folders, on this machine: nothing to check"
        )
    for found in datasets:
        if found.dataset is None:
            findings.add(SETTING, f'{found.part}: {found.fault}')
        elif found.form == 'coco':
            sizes.update(_check_coco(found, done, findings, log))
        elif found.form == 'folders':
            folders[found.part] = found.dataset
            sizes.update(_check_folders(found, findings, log))
        else:
            sizes.update(_check_maps(found, ignore_index, done, findings, log))
    for line in check_class_folders(folders, log):
        findings.add(CLASSES, line)
    check_images(list(sizes), {path: size for path, size in sizes.items() if size}, decode, findings, log)
    return findings


def _check_coco(found: Found, done: set, findings: Findings, log: Callable[[str], None]) -> dict[str, tuple]:
    """Checks a dataset unless it was read before; returns the sizes of its images by path."""
    dataset, path = found.dataset, Path(found.dataset.ann_file)
    use = Use.of(dataset, found.loading, found.part == 'train_dataloader')
    key = path, dataset.data_prefix['img'], use
    if key in done:
        return {}
    done.add(key)
    try:
        annotations = check_annotations(path, use)
    except UNREADABLE as error:
        findings.add(FILE_BROKEN, f'{path}: {type(error).__name__}: {error}')
        return {}
    log(f'{found.part}: {path}: {len(annotations.bad_images)} images, {len(annotations.bad_objects)} objects')
    for line in check_categories(found.part, path, annotations, list(use.classes), log):
        findings.add(CLASSES, line)
    findings.update(annotations.findings)
    return {osp.join(dataset.data_prefix['img'], name): size for name, size in annotations.sizes.items()}


def _check_folders(found: Found, findings: Findings, log: Callable[[str], None]) -> dict[str, None]:
    """The paths of the images of a dataset in folders of classes."""
    try:
        images = dict.fromkeys(item['img_path'] for item in found.dataset.load_data_list())
    except (AssertionError, OSError, RuntimeError, ValueError) as error:
        findings.add(FOLDER, f'{found.part}: {error}')
        return {}
    log(f'{found.part}: {len(images)} images in {found.dataset.img_prefix}')
    return images


def _check_maps(
    found: Found, ignore_index: int, done: set, findings: Findings, log: Callable[[str], None]
) -> dict[str, None]:
    """Checks the label maps of a dataset unless that was done before; returns the paths of its images."""
    try:
        images = dict.fromkeys(item['img_path'] for item in found.dataset.load_data_list())
    except OSError as error:
        findings.add(FOLDER, f'{found.part}: {error}')
        return {}
    maps = found.dataset.data_prefix.get('seg_map_path')
    if maps and found.loading and (maps, *images) not in done:
        done.add((maps, *images))
        log(f'{found.part}: {len(images)} images and their label maps in {maps}')
        check_all_label_maps(found.dataset, ignore_index, findings, log)
    return images


def print_table(findings: Findings) -> None:
    """Prints a row for each kind of faults, the serious first."""
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 140
    table = Table('what', 'how many', 'examples', 'in training', show_lines=True)
    for kind, number in sorted(findings.numbers.items(), key=lambda item: not item[0].stops):
        what = f'{"ENDS A RUN: " if kind.stops else ""}{kind.what}'
        table.add_row(what, str(number), '\n'.join(findings.examples[kind]), kind.effect)
    if findings.numbers:
        console.print(table)
    number = len(findings.serious)
    print(f'{number} kinds of faults would end a run' if number else 'nothing would end a run')


@one_line_errors
def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    if args.data_root is not None:
        set_data_root(cfg, args.data_root)
    findings = find_faults(cfg, args.decode)
    print_table(findings)
    if args.json:
        Path(args.json).write_text(json.dumps(findings.to_list(), indent=1) + '\n')
    if findings.serious:
        sys.exit(1)
