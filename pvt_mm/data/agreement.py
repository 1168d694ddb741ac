"""Do a config's datasets and model agree with the data on disk? Looked at before a model is built."""

import os
from collections.abc import Callable, Iterator

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, Registry

from ..errors import DataError
from .categories import check_categories
from .label_maps import check_label_maps
from .names import some


def check_agreement(cfg: Config, *parts: str, log: Callable[[str], None] = print) -> None:
    """Checks datasets in COCO's form or in mmseg's against their files, each other and the heads of the model.

    Args:
        cfg: The config.
        parts: The dataloaders that the run uses, as the config names them.
        log: Receives what may be meant: categories left out, values of label maps.

    Raises:
        DataError: The run would fail, or train or test on wrong classes. The message has a line for each fault.
    """
    if int(os.environ.get('LOCAL_RANK', 0)):
        return  # the first process says it for all
    faults, seen = [], {}
    head = cfg.get('model', {}).get('decode_head') or {}
    ignore_index = (head[0] if isinstance(head, list) else head).get('ignore_index', 255)
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        for part in parts:
            for settings, cls in _datasets(registry, (cfg.get(part) or {}).get('dataset')):
                if not _is_local(settings):
                    continue
                detection = _reads_as(cls, 'mmdet.datasets.coco.CocoDataset')
                if not detection and not _reads_as(cls, 'mmseg.datasets.basesegdataset.BaseSegDataset'):
                    continue
                dataset, fault = _build(registry, settings)
                if fault:
                    faults.append(f'{part}: {fault}')
                    continue
                if classes := dataset.metainfo.get('classes'):
                    seen.setdefault(part, tuple(classes))
                loading = [step for step in _steps(settings.get('pipeline')) if _loads_annotations(step)]
                if detection:
                    training = part == 'train_dataloader' and bool(loading)
                    faults += check_categories(part, dataset, training, log)
                else:
                    faults += check_label_maps(part, dataset, loading, ignore_index, log)
    if seen:
        faults += _compare(seen)
        faults += check_num_classes(cfg.get('model', {}), next(iter(seen.values())))
    if faults:
        raise DataError('\n'.join(faults))


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
    places = [settings.get('data_root'), settings.get('ann_file'), *settings.get('data_prefix', {}).values()]
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


def check_num_classes(model: dict, classes: tuple[str, ...]) -> list[str]:
    """A fault for each head of ``model`` whose ``num_classes`` is not the number of ``classes``."""
    return [
        f'{key}={head["num_classes"]}, and the datasets have {len(classes)} classes ({some(classes)}): '
        f'set {key}={len(classes)}'
        for key, head in _heads(model, 'model', '')
        if head['num_classes'] != len(classes)
    ]


def _heads(value, path: str, name: str) -> Iterator[tuple[str, dict]]:
    """Every head that classifies into the classes of the dataset, with the path of its ``num_classes``."""
    # An RPN tells objects from background, HTC's semantic head has classes of its own, and so have words.
    if name in ('rpn_head', 'semantic_head') or isinstance(value, dict) and 'language_model' in value:
        return
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _heads(item, f'{path}.{index}', name)
    elif isinstance(value, dict):
        # A class-agnostic mask, foreground against background in one output, STDC's boundaries: other classes.
        other = value.get('class_agnostic') or value.get('out_channels') == 1 or 'boundary_threshold' in value
        if name.endswith('head') and 'num_classes' in value and not other:
            yield f'{path}.num_classes', value
        for key, item in value.items():
            yield from _heads(item, f'{path}.{key}', key)
