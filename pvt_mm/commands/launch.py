"""From the command line to a config that is ready to run; what ``tools/train.py`` and ``tools/test.py`` share."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import NoReturn

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.model.weight_init import PretrainedInit

from ..data.check import SOURCES
from ..engine.saving import FULL, way_out
from ..engine.signals import Stopped
from ..errors import CheckpointError, SettingError
from ..models.base import FROM_BASE
from ..weights.reading import force_weights_only, read_checkpoint
from .classwise import set_classwise
from .options import check_options

# A wheel holds the configs there; a checkout has a link there to the folder beside the package.
CONFIGS = (Path(__file__).parents[1] / '.mim/configs').resolve()
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')
CONFIG_HELP = 'config file, or the name of a shipped config, as retinanet/pvt_small_1x'


def one_line_errors(main: Callable[[], None]) -> Callable[[], None]:
    """Makes ``main`` a program that ends in one line in place of a traceback, where the user can mend what happened.

    That is a :class:`SettingError` or a full disk, with exit code 1. Training that a signal ended has codes of its own.
    """

    @wraps(main)
    def program() -> None:
        force_weights_only()
        code = 0
        try:
            main()
        except SettingError as error:
            _end_with(str(error), error.on_one_process)
        except OSError as error:
            if error.errno not in FULL:
                raise
            _end_with(f'{error.filename or "a file"} was not written ({error.strerror}): {way_out(os.getcwd())}')
        except Stopped as end:
            code = end.code
        except KeyboardInterrupt:
            os._exit(130)  # at once: workers of data loaders notice
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
            if not torch.cuda.is_available():
                _leave(code)
        if code:
            sys.exit(code)

    return program


def _end_with(message: str, on_one_process: bool = False) -> NoReturn:
    silent = int(os.environ.get('LOCAL_RANK', 0)) and not on_one_process  # the first process says it
    message = '' if silent else f'{Path(sys.argv[0]).name}: {message}'
    if not torch.distributed.is_initialized() or torch.cuda.is_available():
        sys.exit(message or 1)
    if message:
        print(message, file=sys.stderr)
    _leave(1)


def _leave(code: int) -> NoReturn:
    """Ends this process now: with gloo, one run in six aborts while the interpreter shuts down. All is written."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that training and testing share, as mmdetection has them, and ``--data-root``."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/<system>/<row>)')
    parser.add_argument(
        '--data-root', help="folder of the dataset (COCO's, or ADEChallengeData2016), in place of the config's"
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings that override the config\'s, as key=value; lists as key="[a,b]" or key=a,b, without spaces',
    )
    parser.add_argument(
        '--check', action='store_true', help='only look for everything that the run needs, which takes seconds'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def shipped_configs() -> dict[str, Path]:
    """The files of the shipped configs by name: ``SYSTEM/ROW``, and ``SYSTEM_ROW`` as in the metafiles."""
    configs = {f'{path.parent.name}/{path.stem}': path for path in CONFIGS.glob('[!_]*/*.py')}
    return configs | {name.replace('/', '_'): path for name, path in configs.items()}


def find_config(config: str) -> Path:
    """The file of a config given as a path, or by a name of a shipped one, with or without ``.py``.

    Raises:
        SettingError: There is neither. The message holds the shipped configs with the nearest names.
    """
    shipped = shipped_configs()
    name = config.removesuffix('.py')
    if Path(config).is_file():
        if Path(config).suffix not in ('.py', '.yml', '.yaml', '.json'):
            raise SettingError(f'{config} is no config, which ends in .py: the config comes first, then a checkpoint')
        return Path(config)
    if name in shipped:
        return shipped[name]
    names = sorted(name for name in shipped if '/' in name)
    nearest = get_close_matches(name, names) or names[:1]
    raise SettingError(
        f'config {config} does not exist: give a file, or the name of a shipped config, as {", ".join(nearest)}'
    )


def read_config(config: str, options: dict | None = None) -> Config:
    """The config that :func:`find_config` finds, with the values of ``--cfg-options``.

    Raises:
        SettingError: There is none, a key of the options is misspelt, or mmpretrain is needed and missing.
    """
    cfg = Config.fromfile(find_config(config))
    if cfg.get('default_scope') == 'mmpretrain':
        check_mmpretrain(cfg.filename)
    if options is not None:
        check_options(cfg, options)
        cfg.merge_from_dict(options)
    return cfg


def check_mmpretrain(config: str) -> None:
    """Raises SettingError where mmpretrain, which classifiers need, cannot be imported."""
    try:
        import mmpretrain.models  # noqa: F401
    except Exception as error:  # a torchvision of another torch, or transformers 5, end it with errors of many types
        raise SettingError(
            f'{config} needs mmpretrain, which cannot be imported here ({type(error).__name__}: '
            f'{str(error).partition(chr(10))[0]}): call make setup EXTRAS=classification, or pip install '
            '"pvt_mm[classification]" beside the torchvision of your torch, without transformers 5'
        ) from error


def load_config(args: argparse.Namespace) -> Config:
    """Reads the config that ``args`` name and applies the shared flags to it.

    Raises:
        SettingError: The config is missing or the flags do not fit it or this machine.
    """
    local_rank = os.environ.get('SLURM_LOCALID', '0') if args.launcher == 'slurm' else str(args.local_rank)
    os.environ.setdefault('LOCAL_RANK', local_rank)
    check_launcher(args.launcher)
    cfg = read_config(args.config, args.cfg_options)
    set_classwise(cfg)
    cfg.launcher = args.launcher
    if args.data_root is not None:
        set_data_root(cfg, args.data_root)
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        path = Path(cfg.filename).resolve()
        cfg.work_dir = str(Path('work_dirs', path.parent.name, path.stem))
    work_dir = Path(cfg.work_dir)
    for place in (work_dir, *work_dir.parents):
        if place.is_file():
            raise SettingError(f'work dir {work_dir}: {place} is a file; give a folder with --work-dir')
    return cfg


def check_launcher(launcher: str) -> None:
    """Raises SettingError where the machine cannot run the processes that the launcher made."""
    if not torch.cuda.is_available():
        if launcher == 'mpi':
            raise SettingError('--launcher mpi needs CUDA; on CPU use --launcher pytorch or slurm')
        return
    processes = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    if launcher == 'pytorch' and processes > torch.cuda.device_count():
        raise SettingError(
            f'{processes} processes are to run on this machine, which has '
            f'{torch.cuda.device_count()} GPUs: start at most that many'
        )


def dicts(value) -> Iterator[dict]:
    """Every dict inside a config value, outermost first."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from dicts(item)


def find_datasets(cfg: Config, loader: str) -> list[dict]:
    """The settings of what a dataloader reads, without its wrappers; none where the config has no such loader."""

    def inside(dataset: dict) -> list[dict]:
        inner = [*dataset.get('datasets', ()), *filter(None, [dataset.get('dataset')])]
        return [found for item in inner for found in inside(item)] or [dataset]

    dataset = (cfg.get(loader) or {}).get('dataset')
    return inside(dataset) if dataset else []


def find_dataset(cfg: Config, loader: str) -> dict:
    """The first of :func:`find_datasets`, which stands for all; empty where there is none.

    Raises:
        SettingError: They load images in different ways.
    """
    first, *others = find_datasets(cfg, loader) or [{}]
    if any(other.get('pipeline') != first.get('pipeline') for other in others):
        raise SettingError(f'the datasets of {loader} have different pipelines: give {loader}.dataset one of them')
    return first


def set_data_root(cfg: Config, root: str) -> None:
    """Puts ``root`` in the place of the config's ``data_root``, in every dataset and evaluator.

    Raises:
        SettingError: The config has no ``data_root``, or several.
    """
    parts = list({id(part): part for key in LOADERS + EVALUATORS for part in dicts(cfg.get(key))}.values())
    old = sorted({part['data_root'].rstrip('/') for part in parts if part.get('data_root')})
    if len(old) != 1:
        raise SettingError(
            f'--data-root needs a config with one data_root, and {cfg.filename} has '
            f'{", ".join(old) or "none"}: set them one by one with --cfg-options'
        )
    for part in parts:
        for key, value in part.items():
            if isinstance(value, str) and (value + '/').startswith(old[0] + '/'):
                part[key] = str(Path(root) / value[len(old[0]) :].lstrip('/'))
    cfg.data_root = root


def check_data(cfg: Config, *parts: str) -> None:
    """Looks for every file and folder that the datasets and evaluators of a run will read.

    Args:
        cfg: The config.
        parts: The dataloaders and evaluators that the run uses, as the config names them.

    Raises:
        SettingError: One is missing, or an image folder is empty.
    """
    for part in parts:
        for settings in dicts(cfg.get(part)):
            prefixes = settings.get('data_prefix')
            prefixes = dict(prefixes) if isinstance(prefixes, dict) else {}
            if 'seg' in prefixes and not _loads_seg(settings.get('pipeline')):
                del prefixes['seg']  # of the panoptic config that some of mmdet's instance segmenters build on
            root = settings.get('data_root') or ''
            wanted = [(settings.get('ann_file'), Path.is_file, 'annotation file')]
            wanted += [(prefix, lambda folder: any(folder.glob('*')), 'folder') for prefix in prefixes.values()]
            for place, present, what in wanted:
                if not isinstance(place, str) or not place or '://' in place + root or settings.get('backend_args'):
                    continue  # nothing to read, or not on a disk of this machine
                path = Path(root) / place
                if not present(path):
                    source = cfg.get('data_source') or SOURCES.get(settings.get('type', ''), '')
                    raise SettingError(
                        f'{part}: the {what} {path} is missing or empty. '
                        f'{source + "; " if source else ""}give its place with --data-root DIR'
                    )


def _loads_seg(pipeline) -> bool:
    """Whether a pipeline of mmdet reads the map of an image's classes."""
    return any(step.get('with_seg', step.get('type') == 'LoadPanopticAnnotations') for step in dicts(pipeline))


def check_checkpoint(path: str | None) -> None:
    """Raises SettingError if ``path`` is a local file or folder that does not exist."""
    if path and '://' not in path and not os.path.exists(os.path.expanduser(path)):
        raise SettingError(f'checkpoint {path[:200]} does not exist')


def check_pretrained(model: ConfigDict) -> None:
    """Reads every pretrained checkpoint that the model names, so that one which cannot be had ends the run now.

    Raises:
        CheckpointError: One is missing, or cannot be fetched or read.
    """
    if int(os.environ.get('LOCAL_RANK', 0)):
        return  # the first process fetches it for all
    for settings in dicts(model):
        is_init = settings.get('type') in ('Pretrained', PretrainedInit)
        checkpoint = settings.get('checkpoint' if is_init else 'pretrained')
        if not is_init and (settings.get('init_cfg') or (settings.get('backbone') or {}).get('init_cfg')):
            continue  # mmseg's base configs say pretrained beside it: the backbones here do not use that
        if isinstance(checkpoint, str):
            try:
                read_checkpoint(checkpoint)
            except CheckpointError as error:
                raise (
                    error if is_init else CheckpointError(f'{error}. It is named by pretrained; {FROM_BASE}')
                ) from error


def check_ops() -> None:
    """Raises SettingError where torch would use a GPU and mmcv's compiled ops could not."""
    from mmcv.ops import get_compiling_cuda_version

    if torch.cuda.is_available() and get_compiling_cuda_version() == 'not available':
        raise SettingError(
            'torch sees a GPU, but mmcv was built without its CUDA ops: set up again with MMCV_CUDA=1 '
            '(docs/install.md), or hide the GPU with CUDA_VISIBLE_DEVICES='
        )
