"""Writes the config for a folder of your own images: ``pvt-mm init DATA --task detection``.

It knows COCO's JSON, Pascal VOC, YOLO's txt, LabelMe, PNG masks, and a folder for each class. What mmdet, mmseg and
mmpretrain do not read themselves is converted into DATA/pvt_mm; the files that you have stay as they are.
"""

import argparse
from collections import Counter
from pathlib import Path
from statistics import median

from mmengine.config import Config

from ..data.forms import READERS, Data, read_classes, read_masks
from ..data.forms.writing import check_masks, draw_split, write_coco, write_lists, write_maps
from ..data.names import some
from ..errors import DataError, SettingError
from .launch import CONFIGS, one_line_errors

TEMPLATES = dict(detection='detector', instances='instances', semantic='semantic', classification='classifier')
WRITERS = dict(detection=write_coco, instances=write_coco, semantic=write_maps, classification=write_lists)
ENLARGED = 2  # times, at most, that the config enlarges the images
FEW_ITERATIONS = 3000  # fewer seldom train a detector
FORMS = (
    'COCO JSON (images, annotations, categories), Pascal VOC (*.xml), YOLO (labels/*.txt and data.yaml or '
    'classes.txt), LabelMe (*.json beside the images), PNG masks (images/ and masks/)'
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', type=Path, metavar='DATA', help='folder of the images and their annotations')
    parser.add_argument(
        '--task', choices=TEMPLATES, required=True, help='boxes, masks of objects, classes of pixels, or of images'
    )
    parser.add_argument('--out', type=Path, help='config file to write (default: <name of DATA>_<task>.py)')
    parser.add_argument(
        '--val-fraction', type=float, default=0.1, help='images for validation if the data has no split (default: 0.1)'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the random split (default: 0)')
    return parser.parse_args()


def read(root: Path, task: str) -> Data:
    """The data of a folder.

    Raises:
        DataError: It has no form that is known, or something in it is broken. The message names the file.
    """
    if task == 'classification':
        data = read_classes(root)
        if data is None:
            raise DataError(
                f'{root} has no images in folders of classes: put them into {root}/CLASS, or train/CLASS and val'
            )
        return data
    masks = read_masks(root) if task == 'semantic' else None
    data = masks or next((data for reader in READERS.values() if (data := reader(root))), None)
    if data is None:
        seen = Counter(path.suffix or 'no suffix' for path in root.rglob('*') if path.is_file())
        counts = some([f'{number} {suffix}' for suffix, number in seen.most_common()]) or 'no files'
        if task != 'semantic' and read_masks(root):
            raise DataError(f'{root} has label maps, which do not tell one object from another: use --task semantic')
        raise DataError(f'{root} has {counts}, and no form that is known for --task {task}: {FORMS}')
    if not data.classes:
        raise DataError(f'{root} ({data.form}) has no object')
    if twice := [name for name, number in Counter(data.classes).items() if number > 1]:
        raise DataError(f'{root} ({data.form}) has several classes with the name {some(twice)}: give each its own')
    return data


def image_size(data: Data, template: Config) -> tuple[int, int] | int:
    """The size to resize to: the template's, or less where that would enlarge the usual image too much.

    Of classifiers it is a side in px, a multiple of 32; else the (long, short) one.
    """
    pipeline = template.test_dataloader.dataset.pipeline
    if template.default_scope == 'mmpretrain':
        short = median(min(image.width, image.height) for image in data.images)
        largest = next(step.crop_size for step in pipeline if step.type == 'CenterCrop')
        return min(largest, max(64, 32 * round(ENLARGED * short / 32)))
    largest = next(step.scale for step in pipeline if step.type == 'Resize')
    usual = (median(function(image.width, image.height) for image in data.images) for function in (max, min))
    return tuple(min(side, round(ENLARGED * own)) for side, own in zip(largest, usual))


def fill(text: str, settings: dict) -> str:
    """The template with these values in the place of its own; each stands on one line."""
    lines = text.splitlines()
    for name, value in settings.items():
        (index,) = (index for index, line in enumerate(lines) if line.startswith(f'{name} = '))
        lines[index] = f'{name} = {_code(value)}'
    return '\n'.join(lines) + '\n'


def _code(value) -> str:
    if isinstance(value, dict):
        return f'dict({", ".join(f"{key}={_code(item)}" for key, item in value.items())})'
    return repr(value)


def report(data: Data, task: str) -> None:
    """Prints what was found, and the objects of each class in each split."""
    print(f'{data.form}: {len(data.images)} images, {len(data.classes)} classes')
    for note in data.notes:
        print(f'- {note}')
    splits = [[image for image in data.images if image.split == split] for split in ('train', 'val')]
    print(f'{"":20s} {"train":>8s} {"val":>8s}')
    print(f'{"images":20s} {len(splits[0]):8d} {len(splits[1]):8d}')
    if any(image.objects for image in data.images):
        train, val = (Counter(item['name'] for image in images for item in image.objects) for images in splits)
        for name in data.classes:
            if task != 'semantic' or name in train + val:
                print(f'{name:20s} {train[name]:8d} {val[name]:8d}')


@one_line_errors
def main() -> None:
    args = parse_args()
    out = args.out or Path(f'{args.data.resolve().name}_{args.task}.py')
    if not args.data.is_dir():
        raise SettingError(f'{args.data} is no folder')
    if out.exists():
        raise SettingError(f'{out} exists: name another file with --out, or remove it')
    if not 0 < args.val_fraction < 1:
        raise SettingError(f'--val-fraction {args.val_fraction} must lie between 0 and 1')
    data = read(args.data, args.task)
    draw_split(data, args.val_fraction, args.seed)
    if args.task in ('instances', 'semantic') and not data.values:
        check_masks(data)
    settings = WRITERS[args.task](args.data, data)
    template = CONFIGS / 'custom' / f'{TEMPLATES[args.task]}.py'
    size = image_size(data, Config.fromfile(template))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(fill(template.read_text(), dict(settings, data_root=args.data.as_posix(), image_size=size)))
    report(data, args.task)
    cfg = Config.fromfile(out)
    number, epochs = sum(image.split == 'train' for image in data.images), cfg.train_cfg.max_epochs
    steps = epochs * -(-number // cfg.train_dataloader.batch_size)
    if steps < FEW_ITERATIONS:
        print(f'{epochs} epochs are {steps} iterations, which is few: raise epochs in {out}')
    print(f'written: {out}. Next: pvt-mm train {out} --check')
