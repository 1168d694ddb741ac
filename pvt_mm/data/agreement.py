"""Do a config's datasets and model agree with the data on disk? Looked at before a model is built."""

import inspect
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, MODELS, Registry

from ..errors import DataError, SettingError
from .annotations import UNREADABLE, WHOLE_FILE, Annotations, Use, check_annotations, write_cleaned
from .categories import check_categories
from .class_folders import check_class_folders, find_classes
from .label_maps import check_label_maps
from .names import some

# The forms of datasets that are looked at, and the class that reads each.
FORMS = dict(
    coco='mmdet.datasets.coco.CocoDataset',
    maps='mmseg.datasets.basesegdataset.BaseSegDataset',
    folders='mmpretrain.datasets.custom.CustomDataset',
)
# What heads call their number of classes; things and stuff add up.
CLASS_COUNTS = ('num_classes', 'num_things_classes', 'num_stuff_classes')


def check_agreement(cfg: Config, *parts: str, log: Callable[[str], None] = print) -> None:
    """Checks datasets in COCO's form, mmseg's or class folders against their files, each other and the model's heads.

    Where ``bad_data`` is ``'skip'``, a training set with faulty images or objects is pointed at a copy without them, in
    the work dir, and a hook is added to the config that says so.

    Args:
        cfg: The config.
        parts: The dataloaders that the run uses, as the config names them.
        log: Receives what may be meant: categories left out, values of label maps, objects that mmdet drops.

    Raises:
        DataError: The run would fail, or train or test on wrong classes. The message has a line for each fault.
        SettingError: ``bad_data`` is neither ``'stop'`` nor ``'skip'``.
    """
    policy = cfg.get('bad_data', 'stop')
    if policy not in ('stop', 'skip'):
        raise SettingError(f"bad_data={policy!r} is unknown: set 'stop' or 'skip'")
    if int(os.environ.get('LOCAL_RANK', 0)):
        if policy == 'stop':
            return  # the first process says it for all
        log = logging.debug  # and here all read the same file and come to the same copy
    faults, seen, left_out, folders = [], {}, [], {}
    head = cfg.get('model', {}).get('decode_head') or {}
    ignore_index = (head[0] if isinstance(head, list) else head).get('ignore_index', 255)
    for found in find_datasets(cfg, *parts):
        part, dataset = found.part, found.dataset
        if dataset is None:
            faults.append(f'{part}: {found.fault}')
            continue
        if found.form == 'folders':
            folders[part] = dataset
            continue
        if classes := dataset.metainfo.get('classes'):
            seen.setdefault(part, tuple(classes))
        if found.form == 'maps':
            faults += check_label_maps(part, dataset, found.loading, ignore_index, log)
            continue
        skip = policy == 'skip' and part == 'train_dataloader'
        path = Path(dataset.ann_file)
        try:
            use = Use.of(dataset, found.loading, part == 'train_dataloader')
            annotations = check_annotations(path, use)
        except UNREADABLE as error:
            faults.append(f'{part}: {path} is no file in the form of COCO ({type(error).__name__}: {error})')
            continue
        wrong = check_categories(part, path, annotations, list(classes), log)
        wrong = wrong or check_objects(found, annotations, use, skip, log)
        if found.settings is cfg[part].dataset:
            wrong += check_metrics(cfg, part, path, annotations, use)
        faults += wrong
        if skip and not wrong and annotations.findings.serious:
            found.settings['ann_file'] = str(write_cleaned(path, Path(cfg.work_dir, 'cleaned'), annotations))
            left_out.append(
                f'{annotations.bad_objects.sum()} objects and {annotations.bad_images.sum()} images of {path}'
            )
            log(f"{part}: bad_data='skip' leaves out {left_out[-1]}; it trains on {found.settings['ann_file']}")
    if folders and not faults:
        faults += check_class_folders(folders, log)
    if folders and not faults:
        first = next(iter(folders.values()))
        classes = first.metainfo.get('classes') or find_classes(first)
        faults += check_num_classes(cfg.model, classes, cfg.default_scope) if classes else []
    if seen:
        faults += _compare(seen)
        faults += check_num_classes(cfg.get('model', {}), next(iter(seen.values())), cfg.get('default_scope'))
    if faults:
        raise DataError('\n'.join(faults))
    if policy == 'skip' and 'train_dataloader' in parts:
        hooks = [hook for hook in cfg.get('custom_hooks') or [] if hook['type'] != 'PVTBadDataHook']
        cfg.custom_hooks = [*hooks, dict(type='PVTBadDataHook', left_out=left_out)]


@dataclass(frozen=True)
class Found:
    """A dataset of a config that reads files of this machine in COCO's form, in mmseg's or in folders of classes.

    Args:
        part: The dataloader, as the config names it.
        settings: Its settings, in the config.
        form: 'coco', 'maps' or 'folders'.
        loading: The settings of each LoadAnnotations in its pipeline, and one for the masks that a metric loads;
            without one no annotation is loaded.
        dataset: The dataset without its data. None where it cannot be built.
        fault: Why.
    """

    part: str
    settings: dict
    form: str
    loading: list[dict]
    dataset: BaseDataset | None
    fault: str


def find_datasets(cfg: Config, *parts: str) -> Iterator[Found]:
    """The datasets of the dataloaders ``parts``, those that a wrapper holds included."""
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        for part in parts:
            for settings, cls in _datasets(registry, (cfg.get(part) or {}).get('dataset')):
                form = next((form for form, base in FORMS.items() if _reads_as(cls, base)), None)
                if form and _is_local(settings):
                    loading = [step for step in _steps(settings.get('pipeline')) if _loads_annotations(step)]
                    if _measures_masks(cfg, part):
                        loading.append(dict(type='LoadAnnotations', with_mask=True))  # the metric does
                    yield Found(part, settings, form, loading, *_build(registry, settings))


def _metrics(cfg: Config, part: str) -> list[dict]:
    """The metrics of a dataloader for validation or testing."""
    evaluators = cfg.get(part.replace('dataloader', 'evaluator')) or []
    return evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]


def _measures_masks(cfg: Config, part: str) -> bool:
    """Whether a metric of a dataloader for validation or testing compares masks: it reads those of the file."""
    metrics = [item.get('metric') for item in _metrics(cfg, part)]
    return any('segm' in ([metric] if isinstance(metric, str) else metric) for metric in metrics if metric)


def check_metrics(cfg: Config, part: str, path: Path, annotations: Annotations, use: Use) -> list[str]:
    """A fault where a metric reads another file than its dataset, of other images or with other classes.

    Args:
        cfg: The config.
        part: The dataloader for validation or testing.
        path: The file of its dataset.
        annotations: What that holds.
        use: What for.
    """
    faults = []
    for metric in _metrics(cfg, part):
        file = metric.get('ann_file')
        kind = str(metric.get('type')).rpartition('.')[2]
        if kind != 'CocoMetric' or not file or metric.get('backend_args'):
            continue
        if os.path.realpath(file) == os.path.realpath(path):
            continue
        try:
            other = check_annotations(Path(file), use)
        except UNREADABLE as error:
            faults.append(f'{part}: {file} is no file in the form of COCO ({type(error).__name__}: {error})')
            continue
        names = [[name for name in item.names if name in use.classes] for item in (annotations, other)]
        if names[0] != names[1] or annotations.sizes.keys() != other.sizes.keys():
            key = part.replace('dataloader', 'evaluator')
            faults.append(
                f'{key}.ann_file={file} has {len(other.sizes)} images ({some(other.names)}), and the file of {part} '
                f'{len(annotations.sizes)} ({some(annotations.names)}): set {key}.ann_file={path}'
            )
    return faults


def check_objects(
    found: Found, annotations: Annotations, use: Use, skip: bool, log: Callable[[str], None]
) -> list[str]:
    """A line for each kind of faults that ends the run; what mmdet drops in training is logged in one line.

    Args:
        found: A dataset in COCO's form.
        annotations: What its file holds.
        use: What for.
        skip: Whether faulty images and objects are to be left out, so that only what cannot be is a fault.
        log: Receives the line.
    """
    part, path, findings = found.part, found.dataset.ann_file, annotations.findings
    way_out = 'pvt-mm check_data shows all; mend the file' + (
        ', or leave them out with --cfg-options bad_data=skip' if part == 'train_dataloader' and not skip else ''
    )
    faults = [
        f'{part}: {path}: {findings.numbers[kind]} times {kind.what} ({findings.examples[kind][0]}). '
        f'In training: {kind.effect}. {way_out}'
        for kind in findings.serious
        if not skip or kind in WHOLE_FILE
    ]
    if not len(annotations.bad_images):
        faults.append(f'{part}: {path} lists no image')
    elif part == 'val_dataloader' and not annotations.trained.any() and not faults:
        log(f'WARNING: {part}: {path} has no object that counts, and each AP will be -1')
    if not use.training:
        return faults
    if lacking := [name for name in use.classes if not annotations.objects[name]]:
        log(f'{part}: {path} has no object of {len(lacking)} of the {len(use.classes)} classes: {some(lacking)}')
    harmless = [f'{number} times {kind.what} ({kind.effect})' for kind, number in findings.numbers.items()]
    harmless = [line for line, kind in zip(harmless, findings.numbers) if not kind.stops]
    if harmless:
        log(f'{part}: {path}: {"; ".join(harmless)}')
    left = annotations.trained & ~annotations.bad_objects if skip else annotations.trained
    if not left.any() and not faults:
        counts = some([f'{name} ({annotations.objects[name]} objects)' for name in annotations.names], 10)
        faults.append(
            f'{part}: mmdet keeps no object of {path}, which has {counts or "no categories"}. It leaves out boxes '
            f'that are empty, under 1 px or outside their image, crowds, areas of 0, and images that filter_cfg '
            f'({found.dataset.filter_cfg}) leaves out'
        )
    return faults


def _datasets(registry: Registry, settings) -> Iterator[tuple[dict, type]]:
    """The settings and the class of each dataset, those that a wrapper holds included."""
    for item in settings if isinstance(settings, (list, tuple)) else [settings]:
        if not isinstance(item, dict):
            continue
        cls = item.get('type')
        cls = registry.get(cls) if isinstance(cls, str) else cls
        if isinstance(cls, type) and issubclass(cls, BaseDataset):
            yield item, cls
        else:
            yield from _datasets(registry, item.get('dataset'))
            yield from _datasets(registry, item.get('datasets'))


def _build(registry: Registry, settings: dict) -> tuple[BaseDataset | None, str]:
    """The dataset without its data, or what is wrong with its settings."""
    try:
        dataset = registry.build({**settings, 'lazy_init': True, 'pipeline': []})
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        return None, f'the dataset cannot be built: {error}'
    classes = dataset.metainfo.get('classes') or ()
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        return None, (
            f"metainfo.classes is {classes!r} and no list of names, as ('boat', 'ship'). "
            f'Numbers as names need a config file: --cfg-options drops their quotes'
        )
    return dataset, ''


def _reads_as(cls: type, name: str) -> bool:
    """Whether ``cls`` reads annotations with the methods of the library's class ``name``."""
    # by name: the other library is not imported for this
    base = next((base for base in cls.__mro__ if f'{base.__module__}.{base.__qualname__}' == name), None)
    return (
        base is not None and cls.load_data_list is base.load_data_list and cls.parse_data_info is base.parse_data_info
    )


def _is_local(settings: dict) -> bool:
    prefixes = settings.get('data_prefix') or {}
    prefixes = list(prefixes.values()) if isinstance(prefixes, dict) else [prefixes]
    places = [settings.get('data_root'), settings.get('ann_file'), *prefixes]
    return not settings.get('backend_args') and not any('://' in place for place in places if place)


def _steps(pipeline) -> Iterator[dict]:
    """Every transform of a pipeline, those inside others included."""
    if isinstance(pipeline, dict):
        yield pipeline
        pipeline = list(pipeline.values())
    if isinstance(pipeline, (list, tuple)):
        for step in pipeline:
            yield from _steps(step)


def _loads_annotations(step: dict) -> bool:
    kind = step.get('type')
    return getattr(kind, '__name__', str(kind)).endswith('LoadAnnotations')


def _compare(seen: dict[str, tuple[str, ...]]) -> list[str]:
    """The dataloaders whose classes are not those of the first."""
    (first, classes), *others = seen.items()
    return [
        f'{part}: its {len(other)} classes ({some(other)}) are not the {len(classes)} of {first} ({some(classes)}): '
        f'give both datasets the same metainfo'
        for part, other in others
        if other != classes
    ]


def check_num_classes(model: dict, classes: tuple[str, ...], scope: str | None = None) -> list[str]:
    """A fault for each head of ``model`` that has another number of classes than ``classes``, written or by default."""
    faults = []
    with MODELS.switch_scope_and_registry(scope) as registry:
        heads = list(_heads(model, 'model', ''))
        if scope == 'mmpretrain':  # our classifiers' head is in the backbone, and the preprocessor mixes labels
            parts = {key: model.get(key) or {} for key in ('backbone', 'data_preprocessor')}
            heads += [(f'model.{key}', part) for key, part in parts.items() if part.get('num_classes') is not None]
        for path, head in heads:
            written = {key: head[key] for key in CLASS_COUNTS if key in head}
            counts = _default_counts(registry, head) | written
            if not counts or sum(counts.values()) == len(classes):
                continue
            found = ' and '.join(f'{path}.{key}={count}' for key, count in counts.items())
            wanted = dict.fromkeys(counts, 0) | {next(iter(counts)): len(classes)}
            faults.append(
                f'{found}{"" if written else " by default"}, and the datasets have {len(classes)} classes '
                f'({some(classes)}): set {" ".join(f"{path}.{key}={count}" for key, count in wanted.items())}'
            )
    return faults


def _default_counts(registry: Registry, head: dict) -> dict[str, int]:
    """The numbers of classes that a head has where its settings name none."""
    kind = head.get('type')
    cls = registry.get(kind) if isinstance(kind, str) else kind
    for base in getattr(cls, '__mro__', ())[:-1]:
        parameters = inspect.signature(base).parameters
        counts = {key: parameters[key].default for key in CLASS_COUNTS if key in parameters}
        if counts:
            return counts if all(isinstance(count, int) for count in counts.values()) else {}
    return {}


def _heads(value, path: str, name: str) -> Iterator[tuple[str, dict]]:
    """The path and settings of every head that classifies into the classes of the dataset."""
    # An RPN tells objects from background, HTC's semantic head has classes of its own, and so have words.
    if name in ('rpn_head', 'semantic_head') or isinstance(value, dict) and 'language_model' in value:
        return
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _heads(item, f'{path}.{index}', name)
    elif isinstance(value, dict):
        # A class-agnostic mask, foreground against background in one output, STDC's boundaries: other classes.
        other = value.get('class_agnostic') or value.get('out_channels') == 1 or 'boundary_threshold' in value
        if name.endswith('head') and not other:
            yield path, value
        for key, item in value.items():
            yield from _heads(item, f'{path}.{key}', key)
