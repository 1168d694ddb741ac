"""What training and testing look at before they begin, beside the data: the machine and the settings of the run."""

import inspect
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from copy import deepcopy
from difflib import get_close_matches
from importlib.util import find_spec

from mmengine.config import Config
from mmengine.registry import VISBACKENDS

from ..data.inputs import (
    check_normalisation,
    check_paths,
    check_preprocessor,
    check_sizes,
    class_of,
    count_images,
    load_datasets,
    preprocessor_of,
)
from ..engine.record import count_processes
from ..engine.resume import resumes
from ..engine.saving import EXTRAS, existing
from ..engine.schedule import check_schedule
from ..errors import SettingError
from .backbones import check_backbones, check_base_pretrained
from .get_flops import build_model
from .launch import dicts
from .options import unknown_keys

# The packages that mmengine's backends of the visualizer import when they are first used.
PACKAGES = dict(
    TensorboardVisBackend='tensorboard',
    WandbVisBackend='wandb',
    MLflowVisBackend='mlflow',
    ClearMLVisBackend='clearml',
    NeptuneVisBackend='neptune',
    DVCLiveVisBackend='dvclive',
    AimVisBackend='aim',
)
# The values that an optimizer keeps for each parameter.
STATES = dict(SGD=1, Adam=2, AdamW=2)

# What pads images to multiples of a number of pixels.
PADDING = dict(DetDataPreprocessor='pad_size_divisor', SegDataPreProcessor='test_cfg.size_divisor')


def check_training(cfg: Config, padding: bool = False, log: Callable[[str], None] = print) -> None:
    """Looks for what would spoil a training run in silence or after hours.

    Args:
        cfg: The config.
        padding: Whether to look for image sizes of which the backbone does not see all.
        log: Receives warnings of what may be meant.

    Raises:
        SettingError: The run would fail, or train on images unlike those of its weights.
    """
    if int(os.environ.get('LOCAL_RANK', 0)):
        return  # the first process says it for all
    check_preprocessor(cfg)
    check_preprocessor_keys(cfg)
    check_backbones(cfg)
    check_backends(cfg)
    check_work_dir(cfg)
    if not resumes(cfg):
        check_base_pretrained(cfg)
        check_normalisation(cfg, log)
    check_disk(cfg)
    loaded, validation = (load_datasets(cfg, part) for part in ('train_dataloader', 'val_dataloader'))
    check_paths(loaded, validation, log)
    length = epoch_length(cfg, count_images(cfg.train_dataloader.dataset, loaded))
    if length == 0 and (cfg.get('train_cfg') or {}).get('max_epochs'):  # runs of iterations have endless samplers
        raise SettingError(
            'train_dataloader: an epoch has no iteration, because drop_last leaves out a batch that is not full: '
            'set train_dataloader.drop_last=False, or a smaller train_dataloader.batch_size'
        )
    check_schedule(cfg, length, log)
    check_sizes(cfg, loaded, padding, log)
    if padding:
        check_sizes(cfg, validation, padding, log)


def check_testing(cfg: Config) -> None:
    """Raises SettingError where a test could not run, or not write what it finds."""
    if not int(os.environ.get('LOCAL_RANK', 0)):
        check_preprocessor(cfg)
        check_preprocessor_keys(cfg)
        check_backbones(cfg)
        check_backends(cfg)
        check_work_dir(cfg)


def check_preprocessor_keys(cfg: Config) -> None:
    """Raises SettingError where the data preprocessor has a key that its class does not take."""
    path, settings = preprocessor_of(cfg)
    cls = class_of(cfg, settings)
    for key in unknown_keys(settings, cls) if isinstance(cls, type) else ():
        own = PADDING.get(cls.__name__)
        if key in ('pad_size_divisor', 'size_divisor') and own:
            raise SettingError(
                f'{path}: {cls.__name__} does not take {key}: set {path}.{own}={settings[key]} in its place'
            )
        taken = [name for name in inspect.signature(cls).parameters if name != 'kwargs']
        raise SettingError(f'{path}: {cls.__name__} does not take {key}; it takes {", ".join(taken)}')


def epoch_length(cfg: Config, num_images: int | None) -> int | None:
    """The iterations of an epoch of ``num_images``, by all processes of the run; None where that is unknown."""
    if num_images is None:
        return None
    loader = cfg.train_dataloader
    batches = math.ceil(num_images / count_processes(cfg)) / loader.get('batch_size', 1)
    drops = loader.get('drop_last') or (loader.get('batch_sampler') or {}).get('drop_last')
    return math.floor(batches) if drops else math.ceil(batches)


def check_backends(cfg: Config) -> None:
    """Raises SettingError where a backend of the visualizer is unknown or its package missing."""
    backends = (cfg.get('visualizer') or {}).get('vis_backends') or []
    for index, backend in enumerate(backends if isinstance(backends, (list, tuple)) else [backends]):
        name = backend['type'] if isinstance(backend['type'], str) else backend['type'].__name__
        with VISBACKENDS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
            if isinstance(backend['type'], str) and registry.get(name) is None:
                near = get_close_matches(name, PACKAGES, n=1) or ['LocalVisBackend']
                raise SettingError(f'visualizer.vis_backends.{index}.type={name} is no backend; is it {near[0]}?')
        package = PACKAGES.get(name.rpartition('.')[2])
        if package and find_spec(package) is None:
            raise SettingError(f'{name} needs the package {package}: pip install {package}')


def check_work_dir(cfg: Config) -> None:
    """Raises SettingError where no file can be written to the work dir. Makes no folder."""
    place = existing(cfg.work_dir)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise SettingError(
            f'work dir {cfg.work_dir}: {place} cannot be written to ({error.strerror}): give another, --work-dir DIR'
        ) from error


def check_disk(cfg: Config) -> None:
    """Raises SettingError where the disk has no room for the checkpoints that the run will keep.

    A run that resumes has some on the disk already: it needs room for the next.
    """
    hook = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    number = count_checkpoints(cfg, hook)
    if resumes(cfg):
        number = min(number, 1)
    if not number:
        return
    place = existing(hook.get('out_dir') or cfg.work_dir)
    size, free = checkpoint_size(cfg, hook), shutil.disk_usage(place).free
    if number * size > free:
        raise SettingError(
            f'the run keeps {number} checkpoints of {size / 1e6:.0f} MB, {number * size / 1e9:.1f} GB, and '
            f'{place} has {free / 1e9:.1f} GB free: keep fewer, '
            '--cfg-options default_hooks.checkpoint.max_keep_ckpts=2, or give another --work-dir'
        )


def count_checkpoints(cfg: Config, hook: dict) -> int:
    """The most checkpoints that our CheckpointHook has on the disk at a time."""
    train_cfg = cfg.get('train_cfg') or {}
    by_epoch, interval = hook.get('by_epoch', True), hook.get('interval', -1)
    length = train_cfg.get('max_epochs' if by_epoch else 'max_iters') or 0
    number = math.ceil(length / interval) if interval > 0 else int(hook.get('save_last', True))
    kept = hook.get('max_keep_ckpts', -1)
    best = hook.get('save_best') or []
    others = len([best] if isinstance(best, str) else best) + EXTRAS * bool(hook.get('save_every'))
    # an old one goes once the new one is written
    return others + (min(number, kept) + 1 if 0 < kept < number else number + bool(others))


def checkpoint_size(cfg: Config, hook: dict) -> int:
    """Bytes of a checkpoint: weights, and what the optimizer keeps for those that it trains."""
    cfg = deepcopy(cfg)  # building changes the settings
    for part in dicts(cfg.model):
        if part.get('type') == 'MMSyncBN':  # cannot be built before the processes of a run are joined
            part['type'] = 'BN'
    model = build_model(cfg)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    states = STATES.get(optimizer.get('type'), 1) if hook.get('save_optimizer', True) else 0
    if optimizer.get('type') == 'SGD' and not optimizer.get('momentum'):
        states = 0
    return weights + states * trained
