"""Draws what three trained systems find, as in the paper's last figure: detection, instance and semantic segmentation.

  python -m paper.qualitative RETINANET.pth MASK_RCNN.pth SEMANTIC_FPN.pth IMAGES

writes OUT/qualitative.jpg, a row for each image and a column for each system, and each picture by itself.
"""

import argparse
import json
from pathlib import Path

from pvt_mm.commands.launch import check_checkpoint, check_ops, one_line_errors, read_config
from pvt_mm.commands.predict import load_inferencer, predict
from pvt_mm.commands.sources import find_sources
from pvt_mm.errors import SettingError

CONFIGS = ['retinanet/pvt_small_1x', 'mask_rcnn/pvt_small_1x', 'semantic_fpn/pvt_small_80k']
TITLES = dict(retinanet='RetinaNet', mask_rcnn='Mask R-CNN', semantic_fpn='Semantic FPN')  # by folder in --out


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='python -m paper.qualitative', description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'checkpoints',
        nargs=3,
        help='those of RetinaNet, Mask R-CNN and Semantic FPN, in this order: files or addresses',
    )
    parser.add_argument('images', nargs='+', help='image files, folders of them, or globs in quotes')
    parser.add_argument(
        '--configs', nargs=3, default=CONFIGS, help=f'the configs of the three (default: {" ".join(CONFIGS)})'
    )
    parser.add_argument('--score-thr', type=float, default=0.3, help='draw objects with a higher score (default: 0.3)')
    parser.add_argument('--out', type=Path, default=Path('outputs/qualitative'), help='folder to write to')
    parser.add_argument('--device', help='cpu, cuda, cuda:1 ... (default: a GPU if there is one)')
    return parser.parse_args()


def draw_page(columns: list[list[Path]], out: Path) -> None:
    """Sets pictures side by side: a column for each system, with its pictures of all images."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    num_rows = len(columns[0])
    figure, axes = plt.subplots(num_rows, 3, figsize=(9, 3 * num_rows), squeeze=False, layout='constrained')
    for title, column, pictures in zip(TITLES.values(), axes.T, columns, strict=True):
        column[0].set_title(title)
        for axis, picture in zip(column, pictures, strict=True):
            axis.imshow(plt.imread(picture))
            axis.set_axis_off()
    figure.savefig(out, dpi=100)
    plt.close(figure)


@one_line_errors
def main() -> None:
    args = parse_args()
    check_ops()
    configs = [read_config(config, None) for config in args.configs]
    for checkpoint in args.checkpoints:
        check_checkpoint(checkpoint)
    sources = find_sources(args.images)
    columns = []
    for folder, cfg, checkpoint in zip(TITLES, configs, args.checkpoints):
        out = args.out / folder
        predict(load_inferencer(cfg, checkpoint, args.device), sources, out, args.score_thr, batch=1)
        entries = json.loads((out / 'predictions.json').read_text())['images']
        if any('frame' in entry for entry in entries):
            raise SettingError(f'{entries[0]["file"]} is a video: give images')
        columns.append([out / entry['picture'] for entry in entries])
    draw_page(columns, args.out / 'qualitative.jpg')
    print(f'written to {args.out / "qualitative.jpg"}')


if __name__ == '__main__':
    main()
