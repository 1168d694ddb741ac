"""What several test modules import."""

import re
import subprocess
import sys
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


def run_onnx(model: Path, image: Path, out: Path) -> list[str]:
    """Runs tools/run_onnx.py in a process that has neither torch nor this package; returns the lines it prints."""
    block = 'import sys; sys.modules.update(torch=None, pvt_mm=None, mmcv=None); import runpy; '
    run = f'sys.argv = sys.argv[1:]; runpy.run_path({str(ROOT / "tools/run_onnx.py")!r}, run_name="__main__")'
    command = [sys.executable, '-c', block + run, 'run_onnx.py', model, image, out]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
