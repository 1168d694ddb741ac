"""What several test modules import."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Settings for a short run: no worker processes, and a log line for each iteration.
ALONE = (
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
    'default_hooks.logger.interval=1',
)


def losses(output: str) -> list[float]:
    """The loss of each iteration that an epoch-based run logged."""
    return [float(value) for value in re.findall(r'Epoch\(train\).*?  loss: (\S+)', output)]


# A small PVT of four stages.
NANO = dict(
    embed_dims=(16, 32, 48, 64),
    num_layers=(1, 1, 1, 1),
    num_heads=(1, 2, 3, 4),
    mlp_ratios=(2, 2, 2, 2),
    sr_ratios=(8, 4, 2, 1),
    patch_sizes=(4, 2, 2, 2),
)

# A PVT with the published widths, for what is made for these.
THIN = dict(
    embed_dims=(64, 128, 320, 512),
    num_layers=(1, 1, 1, 1),
    num_heads=(1, 2, 5, 8),
    mlp_ratios=(1, 1, 1, 1),
    sr_ratios=(8, 4, 2, 1),
    patch_sizes=(4, 2, 2, 2),
)
