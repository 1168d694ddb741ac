"""What the processes of test_sharding.py do together: ``torchrun ... -m tests.engine.sharded_runs FOLDER``."""

import json
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import torch
from mmengine.dist import barrier, get_rank, is_main_process
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pvt_mm import PVT, Runner
from pvt_mm.commands.launch import one_line_errors
from pvt_mm.errors import TrainingError
from tests.common import NANO


class Regressor(BaseModel):
    """A PVT whose head is called as mmseg calls its heads, past ``__call__``."""

    def __init__(self, with_cp: bool = False):
        super().__init__()
        self.backbone = PVT(NANO, img_size=32, with_cp=with_cp, frozen_stages=0)
        self.neck = nn.Sequential(nn.Conv2d(64, 9, 1), nn.BatchNorm2d(9))
        self.head = nn.Conv2d(9, 1, 1)

    def forward(self, *images: Tensor, mode: str) -> dict[str, Tensor]:
        return dict(loss=self.head.forward(self.neck(self.backbone(torch.stack(images))[-1])).square().mean())


def images(large: int | None = None) -> list[Tensor]:
    """16 images, one of which may have values that overflow."""
    made = list(torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    if large is not None:
        made[large] *= 1e30
    return made


def run(
    work_dir: Path,
    epochs: int,
    resume: bool = False,
    launcher: str = 'pytorch',
    with_cp: bool = False,
    accumulative_counts: int = 1,
    large: int | None = None,
    **settings,
) -> Runner:
    """A runner whose epoch has 4 iterations of 4 images in all."""
    torch.manual_seed(0)
    loader = dict(batch_size=2 if launcher == 'pytorch' else 4, sampler=dict(type='DefaultSampler', shuffle=False))
    runner = Runner(
        Regressor(with_cp),
        str(work_dir),
        train_dataloader=dict(loader, dataset=images(large)),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=0.002, eps=1e-3),  # keys' biases have gradients of rounding alone
            clip_grad=dict(max_norm=1.0),
            accumulative_counts=accumulative_counts,
        ),
        param_scheduler=dict(type='ExponentialLR', gamma=0.9, end=2),
        default_hooks=dict(runtime_info=None, logger=None),
        launcher=launcher,
        experiment_name=f'{work_dir}_{epochs}',
        randomness=dict(seed=0),
        cfg=dict(train_dataloader=loader, report=False, **settings),
        resume=resume,
    )
    runner.train()
    barrier()  # until the first process has written the checkpoint
    return runner


def kept(runner: Runner) -> dict[str, int]:
    """How many values of parameters and of optimizer states this process keeps."""
    parameters = list(runner.model.parameters())
    optimizer = runner.optim_wrapper.optimizer
    optimizer = getattr(optimizer, 'optim', optimizer)  # ZeRO's own part
    states = [value for state in optimizer.state.values() for value in state.values()]
    return dict(parameters=_count(parameters), states=_count(states))


def _count(tensors: list[Tensor]) -> int:
    local = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    return sum(tensor.untyped_storage().nbytes() // 4 for tensor in local if tensor.ndim)


@one_line_errors  # which ends the process before gloo's threads may abort it
def main() -> None:
    folder, found = Path(sys.argv[1]), {}
    for name, settings in dict(ddp={}, fsdp=dict(shard='fsdp'), zero=dict(shard='zero')).items():
        run(folder / name, 2, **settings)
        run(folder / f'{name}_resumed', 1, **settings)
        found[name] = kept(run(folder / f'{name}_resumed', 2, resume=True, **settings))
        if settings:
            settings['shard_checkpoints'] = True
            run(folder / f'{name}_in_shares', 1, **settings)
            run(folder / f'{name}_in_shares', 2, resume=True, **settings)
    run(folder / 'fsdp_with_cp', 2, shard='fsdp', with_cp=True)
    for name, settings in dict(ddp={}, fsdp=dict(shard='fsdp')).items():
        run(folder / f'{name}_accumulated', 2, accumulative_counts=2, **settings)
    run(folder / 'fsdp_gathers', 2, accumulative_counts=3, shard='fsdp')  # one batch of three is in epoch_1.pth
    if is_main_process():
        (folder / 'fsdp_gathers_resumed').mkdir()
        shutil.copy(folder / 'fsdp_gathers' / 'epoch_1.pth', folder / 'fsdp_gathers_resumed')
    barrier()
    run(folder / 'fsdp_gathers_resumed', 2, resume=True, accumulative_counts=3, shard='fsdp')
    for shard in ('fsdp', 'zero'):
        with suppress(TrainingError):
            run(folder / f'{shard}_nonfinite', 1, shard=shard, large=5)
        barrier()
    (folder / f'rank_{get_rank()}.json').write_text(json.dumps(found))


if __name__ == '__main__':
    main()
