"""What a backbone will see: images normalised, resized and padded, against its pretrained weights and the objects."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from typing import NamedTuple

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.model.weight_init import PretrainedInit
from mmengine.registry import MODELS

from ..errors import SettingError
from ..models import PVT, ColumnarViT
from ..models.archs import check_arch
from ..models.base import Backbone
from .agreement import Found, find_datasets
from .annotations import is_large
from .images import read_size

SAMPLE = 500  # images whose sizes and boxes are looked at, of all spread evenly
SMALLEST = 4  # px: a token of the finest map
Size = tuple[int, int]  # (width, height) in pixels, as in mmcv


class Normalisation(NamedTuple):
    """The channels' order, and their means and standard deviations in it, of values from 0 to 255."""

    order: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        return f'{self.order}, mean {_numbers(self.mean)}, std {_numbers(self.std)}'

    def equals(self, other: 'Normalisation') -> bool:
        return (
            self.order == other.order
            and np.allclose(self.mean, other.mean, rtol=0, atol=2)  # published recipes differ by 1
            and np.allclose(self.std, other.std, rtol=0.05)
        )


IMAGENET = Normalisation('RGB', (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
CAFFE = Normalisation('BGR', (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))
# What published weights were trained with, by their address: the first that matches.
TRAINED_WITH = (
    (r'^open-mmlab://detectron2?/resnet\d+_caffe', CAFFE),
    (r'^open-mmlab://res(net|next)\d', IMAGENET),
    (r'^(pvt|torchvision)://', IMAGENET),
    (r'^https://download\.pytorch\.org/models/res(net|next)', IMAGENET),
    (r'(^|/)pvt_(tiny|small|medium|large|v2_b\d\w*)\.pth$', IMAGENET),
)
# Whose models need one of their own, as they have no other way from samples to a batch.
PREPROCESSORS = dict(mmdet='DetDataPreprocessor', mmseg='SegDataPreProcessor')


def check_preprocessor(cfg: Config) -> None:
    """Raises SettingError where a detector or segmenter has no data preprocessor."""
    path, settings = preprocessor_of(cfg)
    if not settings and cfg.get('default_scope') in PREPROCESSORS:
        raise SettingError(
            f'{path} is missing, and the images would not be made a batch: set {path}.type='
            f'{PREPROCESSORS[cfg.default_scope]} {_options(path, IMAGENET, "bgr_to_rgb")}'
        )


def check_normalisation(cfg: Config, log: Callable[[str], None] = print) -> None:
    """Compares the images that the data preprocessor makes with those that the backbone's weights were trained with.

    Args:
        cfg: The config.
        log: Receives a warning where it may be meant: a backbone of another library (some of mmdet's own configs
            mix them), weights of unknown origin, or weights that ``load_from`` replaces.

    Raises:
        SettingError: A PVT with published weights would see another range or order of channels. It would train on
            them without a word, and worse.
    """
    path, settings = preprocessor_of(cfg)
    if _normalises_itself(cfg):
        return
    for _, holder in _with_backbone(cfg.get('model')):
        address, cls = _pretrained(holder), class_of(cfg, holder['backbone'])
        ours = isinstance(cls, type) and issubclass(cls, Backbone)
        known = next((trained for pattern, trained in TRAINED_WITH if re.search(pattern, address)), None)
        trained = known or (IMAGENET if ours and address else None)
        flag = 'to_rgb' if _name(settings) == 'ClsDataPreprocessor' else 'bgr_to_rgb'
        order = 'RGB' if settings.get(flag) or settings.get('rgb_to_bgr') else 'BGR'
        seen = Normalisation(order, settings.get('mean') or (0.0,) * 3, settings.get('std') or (1.0,) * 3)
        if trained is None or len(seen.mean) != 3 or seen.equals(trained):
            continue
        message = f'{path} gives the backbone {seen}; {address} was trained with {trained}: set ' + _options(
            path, trained, flag
        )
        if ours and known and not cfg.get('load_from'):
            raise SettingError(message)
        log(f'WARNING: {message if known else message.replace("was", "was probably", 1)}')


def _options(path: str, wanted: Normalisation, flag: str) -> str:
    """The settings of a data preprocessor that normalises as ``wanted``, as --cfg-options takes them."""
    values = {'mean': list(wanted.mean), 'std': list(wanted.std), flag: wanted.order == 'RGB'}
    return ' '.join(f'{path}.{key}={str(value).replace(" ", "")}' for key, value in values.items())


def _numbers(values: tuple[float, ...]) -> str:
    return '/'.join(f'{value:g}' for value in values)


def preprocessor_of(cfg: Config) -> tuple[str, dict]:
    """The path and settings of the data preprocessor that takes the images."""
    model = cfg.get('model') or {}
    model = model.get('module') or model  # what is wrapped for test-time augmentation
    path, settings = 'model.data_preprocessor', model.get('data_preprocessor')
    if settings is None:
        settings = cfg.get('data_preprocessor')  # the runner's, for a model without one
        path = path if settings is None else 'data_preprocessor'
    while settings and 'data_preprocessor' in settings:  # mmdet's of several branches
        path, settings = f'{path}.data_preprocessor', settings['data_preprocessor']
    return path, settings or {}


def our_backbones(cfg: Config) -> Iterator[tuple[str, dict, type[Backbone]]]:
    """Every part of a model that holds a backbone of ours: its place, its settings, and the backbone's class."""
    for path, holder in _with_backbone(cfg.get('model')):
        cls = class_of(cfg, holder['backbone'])
        if isinstance(cls, type) and issubclass(cls, Backbone):
            yield path, holder, cls


def _with_backbone(model, path: str = 'model') -> Iterator[tuple[str, dict]]:
    """Every part of a model that holds a backbone, and its place."""
    if isinstance(model, dict):
        if isinstance(model.get('backbone'), dict):
            yield path, model
        for key, part in model.items():  # module: what is wrapped for test-time augmentation
            yield from _with_backbone(part, path if key == 'module' else f'{path}.{key}')


def _pretrained(holder: dict) -> str:
    """The address of the weights that a backbone starts from; '' without."""
    backbone = holder['backbone']
    init_cfg = backbone.get('init_cfg') or []
    for entry in init_cfg if isinstance(init_cfg, list) else [init_cfg]:
        if entry.get('type') in ('Pretrained', PretrainedInit):
            return entry.get('checkpoint') or ''
    return backbone.get('pretrained') or holder.get('pretrained') or ''


def class_of(cfg: Config, settings: dict) -> type | None:
    """What the ``type`` of a part of the model is registered as."""
    kind = settings.get('type')
    with MODELS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        return registry.get(kind) if isinstance(kind, str) else kind


def _normalises_itself(cfg: Config) -> bool:
    """Whether the training pipeline normalises the images, before the data preprocessor."""
    return any(_name(step) == 'Normalize' for step in _all_steps((cfg.get('train_dataloader') or {}).get('dataset')))


def _all_steps(settings) -> Iterator[dict]:
    if isinstance(settings, dict):
        yield settings
        settings = list(settings.values())
    if isinstance(settings, (list, tuple)):
        for item in settings:
            yield from _all_steps(item)


def _name(step: dict) -> str:
    kind = step.get('type')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def load_datasets(cfg: Config, part: str) -> list[Found]:
    """The datasets of a dataloader whose annotations are read within seconds, with these."""
    loaded = []
    for found in find_datasets(cfg, part):
        if found.dataset is None or is_large(found.dataset):
            continue
        try:
            with redirect_stdout(StringIO()):  # pycocotools prints
                found.dataset.serialize_data = False
                found.dataset.full_init()
        except (AssertionError, AttributeError, KeyError, OSError, TypeError, ValueError):
            continue  # check_agreement says what is wrong
        loaded.append(found)
    return loaded


def check_paths(train: list[Found], validation: list[Found], log: Callable[[str], None] = print) -> None:
    """Looks for the images of a run, and for those that both train and validate.

    Args:
        train, validation: The datasets, from :func:`load_datasets`.
        log: Receives a warning of images that do both.

    Raises:
        SettingError: No image of a dataset is there (of a sample).
    """
    for found in (*train, *validation):
        paths = [image['img_path'] for image in found.dataset.data_list]
        if paths and not any(map(os.path.isfile, paths[:: -(-len(paths) // SAMPLE)])):
            raise SettingError(
                f'{found.part}: none of the {len(paths)} images is where the config looks for it, as {paths[0]}: '
                f'set data_root and data_prefix of its dataset'
            )
    trained, validates = (
        {os.path.normpath(image['img_path']) for found in part for image in found.dataset.data_list}
        for part in (train, validation)
    )
    if shared := trained & validates:
        log(
            f'WARNING: {len(shared)} of the {len(validates)} images of val_dataloader are trained on as well, as '
            f'{min(shared)}: its figures do not tell how the model does on new images'
        )


def count_images(settings, loaded: list[Found]) -> int | None:
    """The length of a dataset by its settings; None where a part of it is not among ``loaded``."""
    for found in loaded:
        if found.settings is settings:
            return len(found.dataset)
    inner = settings.get('datasets') or [settings.get('dataset')] if isinstance(settings, dict) else [None]
    numbers = [item and count_images(item, loaded) for item in inner]
    return None if None in numbers else settings.get('times', 1) * sum(numbers)


def check_sizes(cfg: Config, loaded: list[Found], padding: bool, log: Callable[[str], None] = print) -> None:
    """Warns of objects that resizing makes too small to be seen, and of strips that fill no patch.

    Args:
        cfg: The config.
        loaded: The datasets of a dataloader, from :func:`load_datasets`.
        padding: Whether to look for strips, which the backbone names itself when it meets the first.
        log: Receives the warnings.
    """
    if not loaded:
        return
    part, stride = loaded[0].part, _stride(cfg)
    sides, strips, pad, outer = [], {}, _padding(cfg, part), cfg[part]['dataset']
    for found in loaded:
        pipeline = list(found.settings.get('pipeline') or ())
        if outer is not found.settings:
            pipeline += outer.get('pipeline') or ()  # of a wrapper that mixes images
        images = found.dataset.data_list
        for image in images[:: -(-len(images) // SAMPLE) or 1]:
            size = (image['height'], image['width']) if 'width' in image else read_size(image['img_path'])
            if size is None:
                continue  # loading says so
            size = size[::-1]
            results = _sizes_after(pipeline, [(size, 1.0)])
            scale = max((scale for _, scale in results), default=0)
            for box in image.get('instances', ()) if scale else ():
                left, top, right, bottom = box['bbox']
                sides.append(scale * ((right - left) * (bottom - top)) ** 0.5)
            for result, _ in results:
                padded = pad(result)
                if padded[0] % stride or padded[1] % stride:
                    strips.setdefault(padded, size)
    small = np.array(sides) < SMALLEST
    if part == 'train_dataloader' and small.sum() * 2 > small.size:
        log(
            f'WARNING: {part}: the pipeline makes {small.sum()} of {small.size} objects smaller than {SMALLEST} px '
            f'(median {np.median(sides):.1f} px), the finest that a backbone tells apart: give Resize a larger scale, '
            f'or cut the images into tiles'
        )
    if padding and strips:
        (width, height), (old_width, old_height) = next(iter(strips.items()))
        log(
            f'WARNING: {part}: images of {old_width}x{old_height} px reach the backbone with {width}x{height} px. '
            f'It does not see the last {width % stride} columns and {height % stride} rows, which fill no patch of '
            f'{stride} px: set {_padding_setting(cfg, part)}'
        )


def _stride(cfg: Config) -> int:
    """The side in pixels of the patches without overlap that a backbone of ours makes; 1 for any other."""
    for _, holder in _with_backbone(cfg.get('model')):
        backbone = holder['backbone']
        cls = class_of(cfg, backbone)
        if cls is PVT:
            last = max(backbone.get('out_indices', (3,)))
            return int(np.prod(check_arch(backbone.get('arch', 'small'))['patch_sizes'][: last + 1]))
        if cls is ColumnarViT:
            return backbone.get('patch_size', 16)
    return 1


def _padding(cfg: Config, part: str) -> Callable[[Size], Size]:
    """What the data preprocessor pads the size of an image to."""
    _, settings = preprocessor_of(cfg)
    if _name(settings) == 'SegDataPreProcessor' and part != 'train_dataloader':
        settings = settings.get('test_cfg') or {}
    divisor = settings.get('pad_size_divisor') or settings.get('size_divisor') or 1
    height, width = settings.get('size') or (0, 0)

    def pad(size: Size) -> Size:
        return tuple(-(-max(side, least) // divisor) * divisor for side, least in zip(size, (width, height)))

    return pad


def _padding_setting(cfg: Config, part: str) -> str:
    path, settings = preprocessor_of(cfg)
    stride = _stride(cfg)
    if _name(settings) != 'SegDataPreProcessor':
        return f'{path}.pad_size_divisor={stride}'
    if part != 'train_dataloader':
        return f'{path}.test_cfg.size_divisor={stride}'
    return f'{path}.size to multiples of {stride}'


# Steps of a pipeline that leave the size of an image as it is.
_SAME_SIZE = re.compile('^(Load|Pack|PhotoMetric|RandomFlip|Filter|YOLOXHSV|CLAHE|AdjustGamma|RandomErasing|CutOut|Id)')


def _sizes_after(pipeline: list[dict], results: list[tuple[Size, float]]) -> list[tuple[Size, float]]:
    """The sizes that a pipeline can give an image, and the factors by which it scales what is in it.

    Args:
        pipeline: The steps.
        results: The sizes and factors before it.

    Returns:
        Those after it; of a range, the ends. Empty where a step is unknown.
    """
    for step in pipeline:
        step_name = _name(step)
        if step_name in ('RandomChoice', 'RandomApply', 'TestTimeAug'):
            if step_name != 'RandomChoice':
                return []
            results = [new for branch in step['transforms'] for new in _sizes_after(branch, results)]
        elif not _SAME_SIZE.match(step_name):
            results = [new for old in results for new in _after_step(step_name, step, *old)]
    return sorted(set(results), key=lambda result: result[1])


def _after_step(name: str, step: dict, size: Size, factor: float) -> Iterator[tuple[Size, float]]:
    """The sizes and factors after a step that changes sizes; none where the step is unknown."""
    if name in ('Resize', 'FixScaleResize', 'RandomResize', 'RandomChoiceResize', 'ResizeToMultiple'):
        for new in _resized(name, step, size):
            yield new, factor * (new[0] * new[1] / size[0] / size[1]) ** 0.5
    elif name == 'Pad':
        width, height = step.get('size') or (0, 0)
        divisor = step.get('size_divisor') or 1
        if not step.get('pad_to_square'):
            yield tuple(-(-max(s, least) // divisor) * divisor for s, least in zip(size, (width, height))), factor
    elif name == 'RandomCrop' and step.get('crop_type', 'absolute') == 'absolute':
        crop = step['crop_size']
        height, width = (crop, crop) if isinstance(crop, int) else crop
        yield (min(size[0], width), min(size[1], height)), factor


def _resized(name: str, step: dict, size: Size) -> Iterator[Size]:
    if name == 'ResizeToMultiple':
        divisor = step.get('size_divisor', 32)
        yield tuple(-(-side // divisor) * divisor for side in size)
        return
    scales = step.get('scales') or step.get('scale')
    if name == 'RandomChoiceResize':
        scales = [min(scales, key=_area), max(scales, key=_area)]
    elif name == 'RandomResize' and step.get('ratio_range'):
        scales = [tuple(int(side * ratio) for side in scales) for ratio in step['ratio_range']]
    elif scales is None:
        factors = step.get('scale_factor')
        factors = (factors, factors) if isinstance(factors, (int, float)) else factors
        yield tuple(int(side * factor + 0.5) for side, factor in zip(size, factors))
        return
    elif name != 'RandomResize' or isinstance(scales[0], (int, float)):
        scales = [scales]
    for scale in scales:
        scale = (scale, scale) if isinstance(scale, int) else tuple(scale)
        yield mmcv.image.rescale_size(size, scale) if step.get('keep_ratio') else scale


def _area(scale) -> int:
    return scale if isinstance(scale, int) else scale[0] * scale[1]
