"""What stands on the page, and the page itself."""

import base64
import os
import platform
import re
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset

from .history import read_history
from .mistakes import IOU_THR, SCORE_THR, confusions

# The figure that is compared, by the end of its key in the log; mmdet's are from 0 to 1.
HEADLINES = {'bbox_mAP': ('box AP', 100), 'segm_mAP': ('mask AP', 100), 'mIoU': ('mIoU', 1)}
PACKAGES = ('pvt_mm', 'torch', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation', 'numpy', 'opencv-python')
PICTURE_SIDE = 320  # longer side of a picture, in pixels
MAX_LABELS = 15  # boxes of a picture up to which the right ones are labelled too


def render(**parts) -> str:
    """The page: ``template.html`` filled with ``parts``."""
    from jinja2 import Environment

    template = Path(__file__).with_name('template.html').read_text()
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(parts)


def describe_config(cfg: Config) -> dict:
    """The config against its file.

    Returns:
        name; about: the comment on top of the file; paper: the figures that it says the paper has; text: the file's;
        changes: (key, the file's value, the run's) where flags changed it. All but the name can be empty.
    """
    path = Path(cfg.filename or '')
    if not path.is_file():
        return dict(name=path.name or 'a config without a file', about='', paper={}, text='', changes=[])
    text = path.read_text()
    about = ' '.join(line.lstrip('# ') for line in re.match(r'(?:#.*\n)*', text)[0].splitlines())
    paper = {}
    for kind, figure in re.findall(r'\b((?:box |mask )?AP|mIoU) (\d+\.\d+)', about, re.IGNORECASE):
        if 'in the paper' in about:
            paper[{'ap': 'box AP', 'miou': 'mIoU'}.get(kind.lower(), kind[0].lower() + kind[1:])] = float(figure)
    old, new = (dict(_flatten(Config.fromfile(path)._cfg_dict)), dict(_flatten(cfg._cfg_dict)))
    changes = [
        (key, old.get(key, '—'), new.get(key, '—'))
        for key in [*old, *(key for key in new if key not in old)]
        if repr(old.get(key, '—')) != repr(new.get(key, '—')) and (key, new.get(key)) != ('launcher', 'none')
    ]
    return dict(name=f'{path.parent.name}/{path.stem}', about=about, paper=paper, text=text, changes=changes)


def _flatten(value, prefix: str = '') -> Iterator[tuple[str, object]]:
    """The values of a config by keys with dots."""
    if isinstance(value, (dict, ConfigDict)) and value:
        for key, item in value.items():
            yield from _flatten(item, f'{prefix}.{key}')
    elif isinstance(value, (list, tuple)) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _flatten(item, f'{prefix}.{index}')
    else:
        yield prefix.lstrip('.'), value


def describe_dataset(name: str, dataset) -> dict:
    """Counts the images and objects of a dataset, those inside wrappers included, which takes about 25 us an image.

    Returns:
        name; images: how many files; times: how often an epoch sees each, on average; objects: how many of each class,
        None for label maps.
    """
    images, objects = 0, None
    for inner in _unwrap(dataset):
        inner.full_init()
        images += len(inner)
        for index in range(len(inner)):
            instances = inner.get_data_info(index).get('instances')
            if instances is None:
                break  # label maps
            objects = Counter() if objects is None else objects
            objects.update(instance['bbox_label'] for instance in instances if not instance.get('ignore_flag'))
    images = images or len(dataset)  # of a foreign kind
    return dict(name=name, images=images, times=len(dataset) / max(images, 1), objects=objects)


def _unwrap(dataset) -> Iterator[BaseDataset]:
    if isinstance(dataset, BaseDataset):
        yield dataset
    for inner in [dataset.dataset] if hasattr(dataset, 'dataset') else getattr(dataset, 'datasets', []):
        yield from _unwrap(inner)


def describe_environment() -> list[tuple[str, str]]:
    """Machine and versions, without the folders of the user."""
    found = [('Python', platform.python_version()), ('system', platform.platform())]
    for package in PACKAGES:
        try:
            found.append((package, version(package)))
        except PackageNotFoundError:
            continue
    if torch.cuda.is_available():
        found += [('GPU', torch.cuda.get_device_name()), ('CUDA', torch.version.cuda)]
    else:
        found.append(('device', f'CPU, {torch.get_num_threads()} threads of {os.cpu_count()} cores'))
    return found


def headlines(metrics: dict) -> dict[str, float]:
    """The figures that count, in percent, by their names; of a metric that is not known, its first three."""
    found = {}
    for end, (name, scale) in HEADLINES.items():
        for key, value in metrics.items():
            if key.rpartition('/')[2] == end and value >= 0:  # COCO's -1: no objects
                found[name] = value * scale
    other = {
        key: value
        for key, value in metrics.items()
        if key not in ('step', 'time', 'data_time') and isinstance(value, (int, float))
    }
    return found or dict(list(other.items())[:3])


def make_charts(work_dir: str, epoch_length: int | None, batch: int | None, paper: dict[str, float]) -> dict:
    """Draws the curves of a work directory.

    Args:
        work_dir: The folder.
        epoch_length: Iterations in an epoch; None for a run that counts iterations.
        batch: Images that all processes together train on in an iteration; None where it is not known.
        paper: The figures to draw beside those of the run.

    Returns:
        charts: the title and SVG of each; history: the figures that count at each evaluation; rate: images per second,
        None where it is not known.
    """
    from .charts import curves

    training, evaluations = read_history(work_dir)
    length, xlabel = (epoch_length, 'epoch') if epoch_length else (1, 'iteration')

    def line(key: str, scale=lambda value: value) -> tuple[list, list]:
        entries = [entry for entry in training if isinstance(entry.get(key), (int, float))]
        return [entry['step'] / length for entry in entries], [scale(entry[key]) for entry in entries]

    charts = {}
    history = [dict(headlines(entry), x=entry['step'] / length) for entry in evaluations]
    names = list(dict.fromkeys(name for entry in history for name in entry if name != 'x'))
    if names:
        lines = {name: tuple(zip(*[(entry['x'], entry[name]) for entry in history if name in entry])) for name in names}
        targets = {f"{name}, the paper's": paper.get(name, np.nan) for name in names if name in paper}
        charts[', '.join(names)] = curves(lines, xlabel, targets, markers=True)
    losses = sorted({key for entry in training for key in entry if 'loss' in key}, key=lambda key: (key != 'loss', key))
    if losses:
        charts['Losses'] = curves({key: line(key) for key in losses[:6]}, xlabel)
    if line('lr')[0]:
        charts['Learning rate'] = curves({'lr': line('lr')}, xlabel)
    rates = line('time', lambda seconds: batch / seconds)[1] if batch else []
    if rates:
        charts['Throughput, images/s'] = curves({'images/s': (line('time')[0], rates)}, xlabel)
    if line('memory')[0]:
        charts['GPU memory, MiB'] = curves({'memory': line('memory')}, xlabel)
    return dict(charts=charts, history=history, rate=float(np.median(rates)) if rates else None)


def describe_classes(mistakes: dict, metrics: dict, trained_on: Counter | None) -> tuple[list[str], list[list]]:
    """The head and rows of the table of classes, the worst first.

    Args:
        mistakes: What :class:`Mistakes` found.
        metrics: The figures of the evaluation; those of single classes (``classwise``) are shown.
        trained_on: Objects of each class in training.
    """
    matrix, detection = np.asarray(mistakes['matrix'], float), mistakes['task'] == 'detection'
    right, truth, predicted = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    with np.errstate(invalid='ignore'):
        recall, precision, iou = 100 * right / truth, 100 * right / predicted, 100 * right / (truth + predicted - right)
    single = {key.rpartition('/')[2]: 100 * value for key, value in metrics.items() if key.endswith('_precision')}
    ap = 'mask AP' if any(key.endswith('segm_mAP') for key in metrics) else 'AP'
    rows = []
    for i, name in enumerate(mistakes['classes'][: -1 if detection else None]):
        if detection:
            row = [trained_on[i]] if trained_on else []
            row += [int(truth[i])] + ([single.get(f'{name}_precision', np.nan)] if single else [])
            row += [recall[i], precision[i]]
        else:
            row = [100 * truth[i] / truth.sum(), iou[i], recall[i], precision[i]]
        rows.append([name, *row])
    if detection:
        head = ['class', *(['objects in training'] if trained_on else []), 'in validation', *([ap] if single else [])]
        rows.sort(key=lambda row: np.nan_to_num(row[-3 if single else -2], nan=1e9))
        return [*head, 'recall', 'precision'], rows
    rows.sort(key=lambda row: np.nan_to_num(row[2], nan=1e9))
    return ['class', '% of pixels', 'IoU', 'recall', 'precision'], rows


def describe_mistakes(mistakes: dict) -> dict:
    """The pictures, the matrix and the most frequent mistakes for the page."""
    from .charts import heat_map

    palette = _palette(mistakes)
    draw = _boxes if mistakes['task'] == 'detection' else _maps
    pictures = []
    for image in mistakes['worst']:
        if photo := _photo(image.get('img_path')):
            pictures.append(
                dict(image, photo=photo, name=Path(image['img_path']).name, **draw(image, mistakes, palette))
            )
    matrix = np.asarray(mistakes['matrix'])
    return dict(
        task=mistakes['task'],
        pictures=pictures,
        colours={name: '#' + bytes(colour).hex() for name, colour in zip(mistakes['classes'], palette)},
        heat_map=heat_map(matrix, mistakes['classes']),
        confusions=confusions(mistakes),
        score_thr=SCORE_THR,
        iou_thr=IOU_THR,
    )


def _palette(mistakes: dict) -> np.ndarray:
    """(C, 3) uint8 RGB: the dataset's colours, or some that differ."""
    palette, number = mistakes.get('palette'), len(mistakes['classes'])
    if mistakes['task'] == 'segmentation' and isinstance(palette, (list, tuple)) and len(palette) >= number:
        return np.array(palette[:number], np.uint8)
    hues = np.arange(number) * 67 % 180
    hsv = np.stack([hues, np.full(number, 200), np.full(number, 220)], 1).astype(np.uint8)
    return cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0]


def _photo(path: str | None) -> str | None:
    """A picture of at most 320 px as a data URI; None where the file cannot be read."""
    image = cv2.imread(path) if path else None
    if image is None:
        return None
    scale = min(1, PICTURE_SIDE / max(image.shape))
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return _uri('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 80])


def _uri(suffix: str, image: np.ndarray, settings=()) -> str:
    kind = dict(jpg='jpeg').get(suffix[1:], suffix[1:])
    return f'data:image/{kind};base64,{base64.b64encode(cv2.imencode(suffix, image, settings)[1]).decode()}'


def _boxes(image: dict, mistakes: dict, palette: np.ndarray) -> dict:
    """The panels of a detector's picture: each box with its label and what became of it."""
    names, owners = mistakes['classes'], image['owners']
    truth = [
        dict(box=box, label=names[label], state='missed') for box, label in _pairs(image, 'true_boxes', 'true_labels')
    ]
    found = []
    for (box, label), score, owner in zip(_pairs(image, 'boxes', 'labels'), image['scores'], owners):
        state = 'false'
        if owner >= 0:
            state = 'right' if image['true_labels'][owner] == label else 'confused'
            truth[owner]['state'] = state
        found.append(dict(box=box, label=f'{names[label]} {score:.2f}', state=state))
    for panel in (truth, found):
        if len(panel) > MAX_LABELS:
            for item in panel:
                item['label'] = '' if item['state'] == 'right' else item['label']
    counts = Counter(item['state'] for item in [*truth, *(item for item in found if item['state'] == 'false')])
    said = [f'{counts[state]} {state}' for state in ('missed', 'confused', 'false') if counts[state]]
    return dict(panels=[truth, found], caption=', '.join(said))


def _pairs(image: dict, boxes: str, labels: str) -> list[tuple]:
    return list(zip(np.round(image[boxes], 1).tolist(), image[labels].tolist()))


def _maps(image: dict, mistakes: dict, palette: np.ndarray) -> dict:
    """The panels of a segmenter's picture: a coloured map each, clear where there is no class."""
    colours = np.zeros((len(palette) + 1, 4), np.uint8)  # the last: no class
    colours[:-1] = np.concatenate([palette[:, ::-1], np.full((len(palette), 1), 255)], 1)  # OpenCV's order, and alpha
    maps = [np.where((labels >= 0) & (labels < len(palette)), labels, len(palette)) for labels in image['maps']]
    return dict(
        panels=[_uri('.png', colours[labels]) for labels in maps],
        caption=f'{100 * image["errors"]:.1f}% of its pixels wrong',
    )
