"""Runs a trained model on your own images and draws what it finds: ``predict.py CONFIG CHECKPOINT IMAGES``.

Pictures go to OUT_DIR/vis. What is found goes to OUT_DIR/preds (detectors: JSON with labels, scores and boxes) or
OUT_DIR/pred (segmenters: label maps as PNG).
"""

import argparse
import warnings
from pathlib import Path

import cv2
from mmengine.config import Config, DictAction
from mmengine.infer import BaseInferencer
from mmengine.registry import DATASETS, init_default_scope

from ..errors import SettingError
from ..weights.loading import find_state_dict, load_weights
from ..weights.reading import read_checkpoint
from .launch import CONFIG_HELP, check_checkpoint, check_ops, find_config, one_line_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument('checkpoint', help='checkpoint file or address')
    parser.add_argument('images', nargs='+', help='image files, or folders of them')
    parser.add_argument('--out-dir', default='outputs', help='folder to write to (default: outputs)')
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='draw detections from this score on (default: 0.3)'
    )
    parser.add_argument('--device', help='cpu, cuda, cuda:1 ... (default: a GPU if there is one)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help="settings that override the config's")
    return parser.parse_args()


def find_images(places: list[str]) -> list[str]:
    """The images that ``places`` name, in the order of their names within a folder.

    Raises:
        SettingError: A place is missing, a file is no image, or a folder holds none.
    """
    images = []
    for place in places:
        path = Path(place)
        if path.is_dir():
            found = [str(file) for file in sorted(path.iterdir()) if file.is_file() and cv2.haveImageReader(str(file))]
            if not found:
                raise SettingError(f'{place} holds no image that OpenCV reads')
            images += found
        elif not path.is_file():
            raise SettingError(f'image {place} does not exist')
        elif not cv2.haveImageReader(place):
            raise SettingError(f'{place} is no image that OpenCV reads')
        else:
            images.append(place)
    return images


def find_meta(cfg: Config, checkpoint: dict) -> dict:
    """The names and colours of the classes: as the checkpoint tells them, or else those of the config's dataset."""
    meta = checkpoint.get('meta', {}).get('dataset_meta')
    meta = {str(key).lower(): value for key, value in meta.items()} if isinstance(meta, dict) else {}
    classes = meta.get('classes')
    if isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes):
        return meta
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    with DATASETS.switch_scope_and_registry(cfg.default_scope) as registry:
        return {**registry.get(dataset.type).METAINFO, **dataset.get('metainfo', {})}


def load_inferencer(cfg: Config, checkpoint: str, device: str | None) -> BaseInferencer:
    """mmdet's or mmseg's inferencer with the weights of a checkpoint.

    Raises:
        SettingError: The config is neither mmdet's nor mmseg's.
        CheckpointError: The checkpoint cannot be read, or does not hold all weights of the model.
    """
    scope = cfg.get('default_scope')
    init_default_scope(scope or 'mmengine')
    read = read_checkpoint(checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that no weights are loaded: they are, below
        if scope == 'mmdet':
            from mmdet.apis import DetInferencer

            inferencer = DetInferencer(cfg, device=device)
        elif scope == 'mmseg':
            from mmseg.apis import MMSegInferencer

            inferencer = MMSegInferencer(cfg, device=device)
        else:
            raise SettingError(f"default_scope={scope!r}: 'mmdet' or 'mmseg' is needed to draw what a model finds")
    load_weights(inferencer.model, find_state_dict(read, checkpoint), checkpoint, strict=True)
    inferencer.model.dataset_meta = inferencer.visualizer.dataset_meta = find_meta(cfg, read)
    return inferencer


@one_line_errors
def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(find_config(args.config))
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    check_ops()
    check_checkpoint(args.checkpoint)
    images = find_images(args.images)
    inferencer = load_inferencer(cfg, args.checkpoint, args.device)
    if cfg.default_scope == 'mmdet':
        inferencer(images, out_dir=args.out_dir, pred_score_thr=args.score_thr, no_save_pred=False)
    else:
        inferencer(images, out_dir=args.out_dir)
    print(f'{len(images)} images: {args.out_dir}/vis')
