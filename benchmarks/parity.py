"""How far our maps are from the published code's on this device, for every size: ``python -m benchmarks.parity``.

PVT and PVTv2 are set beside outputs of the published code, kept in tests/published. Of ColumnarViT none are published:
it is set beside itself in float64. Writes benchmarks/results/parity_<device>_<precision>.json and .md, and ends with an
error where a map is further off than the bound of its precision.
"""

import argparse

import torch
from torch import Tensor, nn

from paper.tables import markdown
from pvt_mm.commands.launch import one_line_errors
from pvt_mm.errors import SettingError
from pvt_mm.models import PVT, ColumnarViT, PVTv2
from tests.parity import (
    DENSE,
    DENSE_CASES,
    DENSE_V2,
    DENSE_V2_CASES,
    dense_errors,
    formula_images,
    formula_weights,
    relative_error,
)

from .common import autocast, keep, parse

# The largest relative error of a map; in lower precision b5's 52 layers add up.
BOUNDS = dict(float32=5e-6, bfloat16=3e-2, float16=3e-2)
VIT = 'vit_1x224x224'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases = [*DENSE_CASES, *DENSE_V2_CASES, VIT]
    parser.add_argument('--cases', nargs='+', choices=cases, default=cases, help='size and images; default: all')
    parser.add_argument('--precisions', nargs='+', choices=BOUNDS, default=list(BOUNDS), help='default: all')
    return parse(parser)


def build(case: str) -> tuple[nn.Module, Tensor]:
    """A case's model, its weights by formula, and its images."""
    variant, shape = case.rsplit('_', 1)
    kinds = ((PVT, DENSE_CASES), (PVTv2, DENSE_V2_CASES))
    model = next((kind(variant) for kind, cases in kinds if case in cases), None) or ColumnarViT(patch_size=16)
    model.load_state_dict(formula_weights(model))
    return model.eval(), formula_images(*map(int, shape.split('x')))


@torch.no_grad()
def errors(model: nn.Module, images: Tensor, case: str, device: str, precision: str) -> list[float]:
    """The relative error of each map."""
    model, images = model.float().to(device), images.to(device)
    with autocast(device, precision):
        maps = model(images)
    if case == VIT:
        return [relative_error(m, exact.cpu().numpy()) for m, exact in zip(maps, model.double()(images.double()))]
    return dense_errors(maps, case, DENSE if case in DENSE_CASES else DENSE_V2)


@one_line_errors
def main() -> None:
    args = parse_args()
    rows = {precision: [] for precision in args.precisions}
    built = {case: build(case) for case in args.cases}
    for precision in args.precisions:
        for case, (model, images) in built.items():
            found = errors(model, images, case, args.device, precision)
            rows[precision].append(dict(case=case, errors=found, bound=BOUNDS[precision]))
        cells = [[row['case'], *(f'{error:.1e}' for error in row['errors'])] for row in rows[precision]]
        text = (
            f'# Relative error of the maps, {precision}\n\nThe bound is {BOUNDS[precision]:.0e}.\n\n'
            f'{markdown(["case", *(f"map {i}" for i in range(1, 5))], cells)}'
        )
        args.precision = precision
        keep(args, 'parity', dict(rows=rows[precision]), text)
    off = [
        f'{row["case"]} in {precision}: {max(row["errors"]):.1e}, more than {row["bound"]:.0e}'
        for precision in rows
        for row in rows[precision]
        if not max(row['errors']) <= row['bound']
    ]
    if off:
        raise SettingError('; '.join(off))


if __name__ == '__main__':
    main()
