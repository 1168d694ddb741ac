"""Prints parameters and multiply-adds of a config's model, part by part: ``python tools/get_flops.py CONFIG``."""
import argparse
from pathlib import Path

from mmengine.config import Config

from pvt_mm.errors import SettingError
from pvt_mm.flops import build_model, count_multiply_adds, count_parameters
from pvt_mm.launch import one_line_errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape', type=int, nargs=2, metavar=('H', 'W'),
        help='image size in pixels (default: 512 512 for segmenters, 800 1280 for all others)')
    args = parser.parse_args()
    if not Path(args.config).is_file():
        raise SettingError(f'config {args.config} does not exist')
    cfg = Config.fromfile(args.config)
    shape = tuple(args.shape or ((512, 512) if cfg.get('default_scope') == 'mmseg' else (800, 1280)))
    model = build_model(cfg)
    parameters = count_parameters(model)
    multiply_adds = count_multiply_adds(model, shape)
    print(f'{type(model).__name__} at {shape[0]}x{shape[1]} px\n'
          f'{"part":<20} {"parameters (M)":>15} {"trainable (M)":>15} {"multiply-adds (G)":>18}')
    for part in [*parameters, *(part for part in multiply_adds if part not in parameters)]:
        print_row(part, *parameters.get(part, (0, 0)), multiply_adds.get(part, 0))
    print_row('all', *map(sum, zip(*parameters.values())), sum(multiply_adds.values()))
    if hasattr(model, 'roi_head'):
        print(f'roi_head: boxes of {model.test_cfg["rpn"]["max_per_img"]} proposals, '
              f'masks of {model.test_cfg["rcnn"]["max_per_img"]} detections')


def print_row(part: str, parameters: int, trainable: int, multiply_adds: int) -> None:
    print(f'{part:<20} {parameters / 1e6:>15.2f} {trainable / 1e6:>15.2f} {multiply_adds / 1e9:>18.2f}')


if __name__ == '__main__':
    one_line_errors(main)
