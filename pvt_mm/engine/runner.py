import copy
import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import master_only
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import Hook
from mmengine.logging import MMLogger, print_log
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import MODEL_WRAPPERS, RUNNERS, VISUALIZERS
from mmengine.runner import Runner as MMEngineRunner
from mmengine.runner.loops import BaseLoop
from mmengine.runner.priority import Priority
from mmengine.visualization import Visualizer
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader

from ..errors import CheckpointError, SettingError
from ..report import ReportHook
from ..weights.loading import find_state_dict, load_weights
from ..weights.reading import SHARES, read_checkpoint
from .coco_eval import choose_coco_eval
from .exact import ExactResumeHook, SeededSamples, exact_dataloader, exact_loop
from .nonfinite import NonFiniteHook, skipped_in_a_row
from .record import KEY, check_record, make_record, out_dir, prepare_resume
from .restarts import restart_store
from .resume import check_moments, check_resumable, drop_foreign_paths, latest_checkpoint, naming_another, resumes
from .saving import CheckpointHook, is_local, keep_log_whole, keep_scalars_whole, whole_file
from .sharding import check_shard, distribute_states, gathered, shard_model, shard_optimizer
from .shares import write_shares
from .signals import StopHook, init_worker
from .slurm import read_slurm
from .step import first_nonfinite
from .unreadable import Skipped, SkippedImagesHook, guard_loading
from .workers import Notes, named_workers


@contextmanager
def without_gc() -> Iterator[None]:
    """Python's garbage collector goes through all objects again and again while annotations are read: COCO's train2017
    takes half as long again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@RUNNERS.register_module('PVTRunner')
class Runner(MMEngineRunner):
    """mmengine's runner that says what a checkpoint held, and runs on CPU processes too.

    - Checkpoints load through :func:`pvt_mm.weights.loading.load_weights`. A weight that is missing is reported when a
      model is fine-tuned from ``load_from``, and raises :class:`pvt_mm.errors.CheckpointError` when a model is
      tested or resumed.
    - A resumed run does not fetch the pretrained weights again, and removes no file outside its work dir.
    - An image that cannot be read ends the run with its name. With ``bad_data='skip'`` in the config, training takes
      another sample in its place and counts it; validation and testing never do. A worker that is killed ends the run
      with the file that it was on.
    - A loss or gradient that is not finite ends the run before it changes a weight, or, with ``nonfinite='skip'``,
      leaves the batch out; weights that are not finite are not saved.
    - Without CUDA, launchers ``'pytorch'`` and ``'slurm'`` run over gloo, and SyncBN, which CPUs lack, becomes BN.
    - A checkpoint is whole as soon as it has its name. On SIGTERM, SIGUSR1 and SIGINT training saves one and ends.
    - A run that resumes takes the newest whole checkpoint, and must be the run that saved it; with
      ``resume_anyway=True`` in the config what differs is only logged.
    - With ``exact_resume=True`` in the config, a run that is resumed ends as one that was never interrupted.
    - ``shard='fsdp'`` in the config shares model and optimizer among the processes, ``shard='zero'`` the optimizer's
      states alone. Checkpoints stay whole; with ``shard_checkpoints=True`` each process writes its share beside.
    - COCO's figures come from faster-coco-eval, where it can be imported, unless the config says
      ``fast_coco_eval = False``.
    - Training leaves ``report.html`` in the work dir, unless the config says ``report = False``.
    """

    _is_exact = False  # the training loop is one of .exact

    def __init__(self, *args, **kwargs) -> None:
        self._notes = []  # of each data loader
        super().__init__(*args, **kwargs)

    @classmethod
    def from_cfg(cls, cfg: Config) -> 'Runner':
        cfg = copy.deepcopy(cfg)
        prepare_resume(cfg)
        return super().from_cfg(cfg)

    def setup_env(self, env_cfg: dict) -> None:
        if self._launcher == 'slurm':
            read_slurm()
        store = restart_store() if self._launcher == 'pytorch' else {}
        if self.distributed and not torch.cuda.is_available() and not torch.distributed.is_initialized():
            # mmengine takes a process group that exists as it is; its own way to one asks for a GPU.
            torch.distributed.init_process_group('gloo', **store)
        super().setup_env({**env_cfg, 'dist_cfg': {**env_cfg.get('dist_cfg', {}), **store}})

    def build_logger(self, *args, **kwargs) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        keep_log_whole(logger)
        return logger

    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        if isinstance(visualizer, dict):
            # mmengine would hand over the one of this name that an earlier run in this process has, with its folder
            kind = visualizer.get('type', 'Visualizer')
            with VISUALIZERS.switch_scope_and_registry(None) as registry:
                kind = registry.get(kind) if isinstance(kind, str) else kind
            kind._instance_dict.pop(visualizer.get('name'), None)
        visualizer = super().build_visualizer(visualizer)
        keep_scalars_whole(visualizer)
        return visualizer

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        shards_model = self.distributed and self.cfg.get('shard') == 'fsdp'
        if shards_model and torch.cuda.is_available():
            if self.cfg.get('sync_bn'):
                model = convert_sync_batchnorm(model, self.cfg.sync_bn)
            return model.to(get_device())
        if not self.distributed or torch.cuda.is_available():
            return super().wrap_model(model_wrapper_cfg, model)
        if any('SyncBatchNorm' in type(module).__name__ for module in model.modules()):  # torch's or mmcv's
            print_log('SyncBN does not run on CPU: every process norms over its own batch (BN).', logger='current')
            model = revert_sync_batchnorm(model)
        if shards_model:
            return model
        settings = model_wrapper_cfg or dict(
            broadcast_buffers=False, find_unused_parameters=self.cfg.get('find_unused_parameters', False)
        )
        return MODEL_WRAPPERS.build(dict(settings, module=model), default_args=dict(type='MMDistributedDataParallel'))

    def build_evaluator(self, evaluator: dict | list | Evaluator) -> Evaluator:
        evaluator = super().build_evaluator(evaluator)
        choose_coco_eval(evaluator, self.cfg.get('fast_coco_eval', True))
        return evaluator

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        if self.cfg.get('exact_resume') and isinstance(loop, dict):
            loop = exact_loop(loop)
            self._is_exact = loop['type'] in ('PVTEpochBasedTrainLoop', 'PVTIterBasedTrainLoop')
        return super().build_train_loop(loop)

    def build_dataloader(self, dataloader: DataLoader | dict, *args, **kwargs) -> DataLoader:
        exact = dataloader is self._train_dataloader and self._is_exact
        with without_gc():
            if exact:
                settings = exact_dataloader(dataloader, self.seed)
                loader = super().build_dataloader(settings, self.seed)  # of all ranks one seed: each has its own share
                loader.dataset.__getitems__ = SeededSamples(loader.dataset)
            else:
                loader = super().build_dataloader(dataloader, *args, **kwargs)
        loader.worker_init_fn = partial(init_worker, loader.worker_init_fn)
        # Here, because a loop by iterations starts the workers as soon as it is built.
        skipped = None
        if dataloader is self._train_dataloader and self.cfg.get('bad_data') == 'skip':
            skipped = Skipped()
            self.register_hook(SkippedImagesHook(skipped))
        keys = ('train_dataloader', 'val_dataloader', 'test_dataloader')
        key = next((key for key in keys if dataloader is getattr(self, f'_{key}')), keys[-1])
        self._notes.append(Notes(key, loader.num_workers))
        guard_loading(loader.dataset, self._notes[-1], skipped)
        return loader

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list | None = None) -> None:
        super().register_hooks(default_hooks, custom_hooks)
        self._stop_hook = StopHook()
        self.register_hook(self._stop_hook)
        if self.cfg.get('report', True) and not any(isinstance(hook, ReportHook) for hook in self.hooks):
            self.register_hook(ReportHook())
        if not any(isinstance(hook, NonFiniteHook) for hook in self.hooks):
            self.register_hook(NonFiniteHook(skipped_in_a_row(self.cfg.get('nonfinite', 'stop'))))
        if self.cfg.get('exact_resume'):
            self.register_hook(ExactResumeHook())
            # A checkpoint holds what all other hooks did, EarlyStoppingHook among them.
            self._hooks.sort(key=lambda hook: isinstance(hook, CheckpointHook) + 2 * isinstance(hook, StopHook))

    def register_hook(self, hook: Hook | dict, priority: Priority | int | str | None = None) -> None:
        if isinstance(hook, dict) and hook['type'] in (
            'CheckpointHook',
            'mmengine.CheckpointHook',
            MMEngineCheckpointHook,
        ):
            hook = dict(hook, type=CheckpointHook)
        super().register_hook(hook, priority)

    @cached_property
    def _record(self) -> dict:
        return make_record(self.cfg, self.world_size)

    def train(self) -> nn.Module:
        """Trains as mmengine does, and saves on a signal.

        Raises:
            Stopped: It was told to end, and has saved a checkpoint.
            TrainingError: A loss, gradient or weight is not finite.
            WorkerError: A worker of a data loader died.
        """
        with self._stop_hook.listening(), named_workers(self._notes):
            try:
                return super().train()
            except Exception as error:
                for hook in self.hooks:
                    if isinstance(hook, NonFiniteHook):
                        hook.explain(self, error)
                raise

    def val(self) -> dict[str, float]:
        with named_workers(self._notes):
            return super().val()

    def test(self) -> dict[str, float]:
        with named_workers(self._notes):
            return super().test()

    def build_optim_wrapper(self, optim_wrapper: OptimWrapper | dict) -> OptimWrapper:
        shard = self.cfg.get('shard')
        if shard is None or isinstance(optim_wrapper, OptimWrapper):
            return super().build_optim_wrapper(optim_wrapper)
        check_shard(self.cfg)
        if not self.distributed:
            raise SettingError(
                f'shard={shard!r} needs several processes, and this run has one: tools/dist_train.sh CONFIG PROCESSES'
            )
        if shard == 'zero':
            return super().build_optim_wrapper(shard_optimizer(optim_wrapper))
        self._init_model_weights()  # now, as initialisers and pretrained weights need whole parameters
        shard_model(self.model)
        wrapper = super().build_optim_wrapper(optim_wrapper)
        wrapper.optimizer.register_load_state_dict_pre_hook(distribute_states)
        return wrapper

    def _init_model_weights(self) -> None:
        if isinstance(self.model, FSDPModule) or resumes(self.cfg):
            return  # they are initialised already, or every weight comes from the checkpoint
        super()._init_model_weights()

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        super().scale_lr(optim_wrapper, auto_scale_lr)
        iterations = (self.cfg.get('train_cfg') or {}).get('max_iters')
        if iterations and (auto_scale_lr or {}).get('enable'):
            base = auto_scale_lr['base_batch_size']
            batch = self.world_size * self.cfg.train_dataloader.batch_size
            if batch != base:
                print_log(
                    f'The learning rate is scaled, not the schedule: {iterations} iterations see {batch} images each, '
                    f'not {base}. As many images in all are train_cfg.max_iters={iterations * base // batch}; '
                    'scale end of each param_scheduler likewise.',
                    logger='current',
                    level=logging.WARNING,
                )

    def load_or_resume(self) -> None:
        if self._resume and self._load_from is None:
            self._load_from = latest_checkpoint(self.work_dir, out_dir(self.cfg))
        super().load_or_resume()

    def resume(self, filename: str, *args, **kwargs) -> None:
        """Goes on from a checkpoint of a training run; the arguments are mmengine's.

        Raises:
            CheckpointError: It cannot be read, does not fit, or holds weights alone.
        """
        self._resume = True  # for load_checkpoint, where this is called by hand
        try:
            super().resume(filename, *args, **kwargs)
            check_moments(self.optim_wrapper)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).partition('\n')[0]
            raise CheckpointError(
                f'{filename} cannot be resumed ({type(error).__name__}: {reason}): its training state is damaged or of '
                'other settings; to start from its weights, set load_from in place of --resume'
            ) from error
        drop_foreign_paths(self.message_hub.runtime_info, self.work_dir)

    def load_checkpoint(self, filename: str, map_location='cpu', strict: bool = False) -> dict:
        """Loads a checkpoint into the model.

        Args:
            filename: A path or any address that mmengine knows.
            map_location: As in :func:`torch.load`.
            strict: Raise on a missing weight, as is done anyway in testing and resuming.

        Returns:
            The checkpoint.

        Raises:
            CheckpointError: It cannot be read, or does not fit.
        """
        if self._resume:
            with naming_another(filename):
                checkpoint = read_checkpoint(filename, map_location)
            check_resumable(checkpoint, filename)
            seed = (self.cfg.get('randomness') or {}).get('seed')
            check_record(checkpoint, self._record, seed, filename, self.cfg.get('resume_anyway', False))
            if part := first_nonfinite({key: checkpoint.get(key) for key in ('optimizer', 'ema_state_dict')}):
                raise CheckpointError(f'{filename}: {part} is not finite; take an earlier checkpoint')
        else:
            checkpoint = read_checkpoint(filename, map_location)
        # mmengine's resume would run this old entry as Python code.
        checkpoint.get('meta', {}).pop('config', None)
        fine_tuning = isinstance(self._train_loop, BaseLoop) and not self._resume
        weights = checkpoint['state_dict'] = find_state_dict(checkpoint, filename)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        load_weights(self.model, weights, filename, strict=strict or not fine_tuning, resume=self._resume)
        self._has_loaded = True
        return checkpoint

    def save_checkpoint(self, out_dir: str, filename: str, *args, **kwargs) -> None:
        """Saves a checkpoint, which is whole as soon as it has its name; all processes call it.

        The arguments are mmengine's.

        Raises:
            SettingError: The disk is full, or the folder cannot be written to.
            TrainingError: What it would hold is not finite.
        """
        sharded = self.cfg.get('shard_checkpoints', False)
        with gathered(self, whole=not sharded) as shares:
            stamp = write_shares(Path(out_dir, filename), shares) if sharded else None
            self._save_checkpoint(out_dir, filename, *args, stamp=stamp, **kwargs)

    @master_only
    def _save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        *args,
        meta: dict | None = None,
        backend_args: dict | None = None,
        stamp: dict | None = None,
        **kwargs,
    ) -> None:
        meta = dict(meta or {}, **{KEY: self._record}, **({SHARES: stamp} if stamp else {}))
        settings = dict(kwargs, meta=meta, backend_args=backend_args)
        if file_client_args or not is_local(out_dir, backend_args):
            super().save_checkpoint(out_dir, filename, file_client_args, *args, **settings)
            return
        with whole_file(Path(out_dir, filename)) as part:
            super().save_checkpoint(out_dir, part.name, None, *args, **settings)
