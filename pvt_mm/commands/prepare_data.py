"""Checks that a dataset is complete and readable before a long run: ``pvt-mm prepare_data coco``.

Exits with 1 and says what is missing, and where it comes from, when a run would fail. Nothing is converted: COCO and
ADE20K are read as they are unpacked.
"""

import argparse

from ..data.check import check_ade20k, check_coco
from .launch import one_line_errors

DATASETS = {'coco': (check_coco, 'data/coco'), 'ade20k': (check_ade20k, 'data/ade/ADEChallengeData2016')}


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('dataset', choices=DATASETS)
    parser.add_argument(
        '--data-root',
        help="its folder (default: the configs', " + ' or '.join(root for _, root in DATASETS.values()) + ')',
    )
    parser.add_argument('--sample', type=int, default=64, help='images of each split to decode (default: 64)')
    args = parser.parse_args()
    check, default_root = DATASETS[args.dataset]
    check(args.data_root or default_root, args.sample)
    print('complete and readable')
