"""What pretraining gives a detector, on the digits: ``python -m benchmarks.pretraining CHECKPOINT``.

arXiv's Figure 5 in small. Trains retinanet/pvt_nano_digits from random weights and from CHECKPOINT, which a run of
classification/pvt_nano_digits saved, for each number of epochs, and writes the AP of each run into
benchmarks/results/pretraining_<device>_<precision>.json and .md. Runs are kept in --work-dir; what is done there is not
run again.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from paper.tables import markdown
from pvt_mm.commands.launch import check_checkpoint, one_line_errors
from pvt_mm.errors import SettingError

from .common import keep, parse
from .measure import ROOT

CONFIG = 'retinanet/pvt_nano_digits'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help="the classifier's")
    parser.add_argument('--data-root', default='data/digits/coco', help="the scenes' folder")
    parser.add_argument('--epochs', type=int, nargs='+', default=[1, 4], help='lengths of the runs')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/pretraining', help='folder of the runs')
    parser.add_argument('--cfg-options', nargs='+', default=[], help='settings of every run, as for tools/train.py')
    return parse(parser)


def train(args: argparse.Namespace, epochs: int, checkpoint: str | None) -> float:
    """The box AP in percent after a run of ``epochs``, in which the learning rate falls to its end.

    Raises:
        SettingError: It failed.
    """
    work_dir = args.work_dir / f'{"random" if checkpoint is None else "pretrained"}_{epochs}e'
    if not (work_dir / f'epoch_{epochs}.pth').is_file():
        settings = [
            f'train_cfg.max_epochs={epochs}',
            f'param_scheduler.1.end={epochs}',
            f'param_scheduler.1.T_max={epochs}',
            *args.cfg_options,
        ]
        if checkpoint:
            settings += ['model.backbone.init_cfg.type=Pretrained', f'model.backbone.init_cfg.checkpoint={checkpoint}']
        places = ['--data-root', args.data_root, '--work-dir', str(work_dir)]
        command = [sys.executable, str(ROOT / 'tools/train.py'), CONFIG, *places, '--cfg-options', *settings]
        print(f'== {" ".join(command)}', flush=True)
        if subprocess.run(command).returncode:
            raise SettingError(f'training failed: {work_dir}')
    scalars = [path.read_text().splitlines() for path in sorted(work_dir.glob('*/vis_data/scalars.json'))]
    found = [
        entry['coco/bbox_mAP'] for lines in scalars for entry in map(json.loads, lines) if 'coco/bbox_mAP' in entry
    ]
    if not found:
        raise SettingError(f'{work_dir}: nothing was detected')
    return round(100 * found[-1], 1)


@one_line_errors
def main() -> None:
    args = parse_args()
    check_checkpoint(args.checkpoint)
    rows = []
    for epochs in args.epochs:
        starts = dict(random=None, pretrained=str(Path(args.checkpoint).resolve()))
        aps = {start: train(args, epochs, checkpoint) for start, checkpoint in starts.items()}
        rows.append(dict(epochs=epochs, **aps))
        lines = [[*map(str, row.values()), f'{row["pretrained"] - row["random"]:+.1f}'] for row in rows]
        table = markdown(['epochs', 'box AP from random weights', "from the classifier's", 'gain'], lines)
        keep(args, 'pretraining', dict(rows=rows), table, epochs == args.epochs[-1])


if __name__ == '__main__':
    main()
