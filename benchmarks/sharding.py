"""Prints what each process keeps of a row's model and optimizer, whole and shared: ``python -m benchmarks.sharding``.

Computed from the shapes of the config's parameters, in float32. Activations come on top (docs/scale.md).
"""

import argparse

from mmengine.config import Config
from torch import nn

from paper.tables import markdown
from pvt_mm.commands.checks import STATES
from pvt_mm.commands.get_flops import build_model
from pvt_mm.commands.launch import find_config

ROWS = [
    f'{system}/pvt_{arch}_{schedule}'
    for system, schedule in (('retinanet', '1x'), ('mask_rcnn', '1x'), ('semantic_fpn', '80k'))
    for arch in ('tiny', 'small', 'medium', 'large')
] + ['detr/pvt_small_50e', 'retinanet/pvt_v2_b5_1x']


def mib(model: nn.Module, states: int, processes: int) -> dict[str, float]:
    """MiB of parameters, gradients and optimizer states that a process keeps, by the value of ``shard``.

    Args:
        model: It may be on the meta device.
        states: How many values the optimizer keeps for each that it trains.
        processes: Among how many the model is shared, evenly.
    """
    all_ = sum(p.numel() for p in model.parameters()) * 4 / 2**20
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad) * 4 / 2**20
    whole = all_ + trained + states * trained
    return dict(none=whole, zero=all_ + trained + states * trained / processes, fsdp=whole / processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rows', nargs='+', default=ROWS, help='configs, as retinanet/pvt_small_1x')
    parser.add_argument('--processes', type=int, default=8)
    args = parser.parse_args()
    lines = []
    for row in args.rows:
        cfg = Config.fromfile(find_config(row))
        model = build_model(cfg)
        kept = mib(model, STATES[cfg.optim_wrapper.optimizer.type], args.processes)
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        lines.append([row, f'{millions:.1f}', *(f'{value:.0f}' for value in kept.values())])
    print(markdown(['row', 'parameters (M)', 'whole copies (MiB)', 'zero (MiB)', 'fsdp (MiB)'], lines))


if __name__ == '__main__':
    main()
