"""Times and weighs Trans2Seg's head, with a few classes at a time beside all at once:
``python -m benchmarks.trans2seg``.

The head is that of PVT-Small's row, with 150 classes, on the maps of images of 512x512. Writes
benchmarks/results/trans2seg_<device>_<precision>.json and .md.
"""

import argparse
from collections.abc import Callable

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from paper.rows import CONFIGS
from paper.tables import markdown
from pvt_mm.commands.launch import one_line_errors
from pvt_mm.models import trans2seg

from .common import CELLS, Images, autocast, cells, compare, keep, parse, parse_images

GROUPS = {'a few classes at a time': trans2seg.GROUP_VALUES, 'all classes at once': 2**62}
OURS = next(iter(GROUPS))


def make_step(images: Images, device: str, precision: str, values: int) -> Callable[[], object]:
    cfg = Config.fromfile(CONFIGS / 'trans2seg/pvt_small_40k.py')
    init_default_scope(cfg.default_scope)
    head = MODELS.build(dict(cfg.model.decode_head, resize=True)).to(device).eval()
    batch, _, height, width = images
    first, last = head.in_channels
    maps = {head.in_index[0]: (first, 4), head.in_index[1]: (last, 32)}
    inputs = [
        torch.rand(batch, maps[i][0], height // maps[i][1], width // maps[i][1], device=device) if i in maps else None
        for i in range(4)
    ]

    @torch.no_grad()
    def step() -> torch.Tensor:
        trans2seg.GROUP_VALUES = values
        with autocast(device, precision):
            return head(inputs)

    return step


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', nargs='+', default=['1x512x512', '4x512x512'], help='batch x height x width')
    args = parse(parser)
    rows = []
    for images in map(parse_images, args.images):
        found = compare(make_step, images, {name: (values,) for name, values in GROUPS.items()}, args)
        rows += [dict(images=images, model=name, **row) for name, row in found.items()]
    lines = []
    for row in rows:
        ours = next(r for r in rows if (r['images'], r['model']) == (row['images'], OURS))
        lines.append(['x'.join(map(str, row['images'])), row['model'], *cells(row, ours)])
    text = f"# Trans2Seg's head with 150 classes, {args.precision}\n\n{markdown(['images', 'head', *CELLS], lines)}"
    keep(args, 'trans2seg', dict(rows=rows), text)


if __name__ == '__main__':
    main()
