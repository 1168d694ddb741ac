"""Writes the embedded dataset, scenes of handwritten digits: ``pvt-mm make_digits``."""

import argparse

from ..data.digits import write_digits
from ..errors import SettingError
from .launch import one_line_errors


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--root', default='data/digits', help='folder to write to')
    parser.add_argument('--num-train', type=int, default=4800, help='training scenes')
    parser.add_argument('--num-val', type=int, default=100, help='validation scenes')
    parser.add_argument('--size', type=int, default=128, help='side of a scene in pixels')
    args = parser.parse_args()
    try:
        written = write_digits(args.root, args.num_train, args.num_val, args.size)
    except (OSError, ValueError) as error:  # the folder or a number is at fault, and the message names it
        raise SettingError(error) from error
    print(f'{args.root}: {"written" if written else "is there already"}')
