"""Runs a trained model on your own images and draws what it finds: ``predict.py CONFIG CHECKPOINT IMAGES``.

Pictures go to OUT/vis, a video's become a video again. What is found goes to OUT/predictions.json, of a classifier the
likeliest classes; label maps of segmenters go to OUT/pred as PNG. docs/looking.md describes the files.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from itertools import groupby, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config, DictAction
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.infer import BaseInferencer
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.structures import BaseDataElement
from PIL import Image as PILImage
from rich.progress import track

from ..errors import SettingError
from ..weights.loading import find_state_dict, load_weights
from ..weights.reading import read_checkpoint
from .backbones import check_backbones
from .launch import CONFIG_HELP, check_checkpoint, check_ops, find_dataset, find_datasets, one_line_errors, read_config
from .sources import Image, Source, count_images, find_sources, read_images


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that loads a trained model to look at images."""
    parser.add_argument('config', help=CONFIG_HELP)
    parser.add_argument('checkpoint', help='checkpoint file or address')
    parser.add_argument('--out', '--out-dir', default='outputs', help='folder to write to (default: outputs)')
    parser.add_argument('--device', help='cpu, cuda, cuda:1 ... (default: a GPU if there is one)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help="settings that override the config's")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser)
    parser.add_argument(
        'images', nargs='+', help='image files, folders of them, globs in quotes, http(s) addresses, videos'
    )
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='draw and write objects with a higher score (default: 0.3)'
    )
    parser.add_argument('--batch', type=int, default=1, help='images at a time, where they have one size (default: 1)')
    return parser.parse_args()


def find_meta(cfg: Config, checkpoint: dict) -> dict:
    """The names and colours of the classes: as the checkpoint tells them, or else those of the config's dataset.

    Raises:
        SettingError: Neither names them.
    """
    meta = checkpoint.get('meta', {})
    meta = meta.get('dataset_meta', meta)  # mmdet and mmseg before 3.0 and 1.0 wrote it outside
    meta = {str(key).lower(): value for key, value in meta.items()} if isinstance(meta, dict) else {}
    classes = meta.get('classes')
    if not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        meta = {}
        for dataset in find_datasets(cfg, 'test_dataloader')[:1]:
            with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
                kind = registry.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
            meta = {**kind.METAINFO, **dataset.get('metainfo', {})}
        if 'classes' not in meta:
            raise SettingError(
                f'neither the checkpoint nor {cfg.filename} names the classes: add metainfo=dict(classes=(...)) to '
                'test_dataloader.dataset'
            )
    classes, palette = meta['classes'], meta.get('palette')
    if not isinstance(palette, list | tuple) or len(palette) != len(classes):
        palette = np.random.default_rng(0).integers(0, 256, (len(classes), 3)).tolist()
    return dict(classes=tuple(classes), palette=[tuple(colour) for colour in palette])


class ClassInferencer:
    """A classifier with what :func:`predict` uses of mmdet's and mmseg's inferencers.

    mmpretrain's own reads every image in colour, whatever the config's pipeline says.
    """

    collate_fn = staticmethod(pseudo_collate)

    def __init__(self, cfg: Config, device: str | None):
        from mmpretrain.visualization import UniversalVisualizer

        self.model = MODELS.build(cfg.model).to(device or get_device()).eval()
        self.load = Compose(cfg.test_dataloader.dataset.pipeline)
        self.visualizer = UniversalVisualizer()

    def pipeline(self, path: str) -> dict:
        return self.load(dict(img_path=path))

    @torch.no_grad()
    def forward(self, inputs: dict) -> list[BaseDataElement]:
        return self.model.test_step(inputs)

    def visualize(self, paths: list[str], samples: list[BaseDataElement], return_vis: bool) -> Iterator[np.ndarray]:
        """Yields pictures (H, W, 3) in RGB."""
        classes = self.model.dataset_meta['classes']
        for path, sample in zip(paths, samples):
            image = mmcv.imread(path, channel_order='rgb')
            yield self.visualizer.visualize_cls(image, sample, classes=classes, draw_gt=False)


def load_inferencer(cfg: Config, checkpoint: str, device: str | None) -> BaseInferencer | ClassInferencer:
    """mmdet's or mmseg's inferencer, or one of a classifier, with the weights of a checkpoint.

    Raises:
        SettingError: The config is of neither of these libraries, there is no such device, or the test datasets load
            images in different ways.
        CheckpointError: The checkpoint cannot be read, or does not hold all weights of the model.
    """
    if str(device).startswith('cuda') and not torch.cuda.is_available():
        raise SettingError(f'--device {device}: torch sees no GPU here')
    if dataset := find_dataset(cfg, 'test_dataloader'):
        cfg = deepcopy(cfg)
        cfg.test_dataloader.dataset = dataset  # the inferencers know no wrappers
    check_backbones(cfg)
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
        elif scope == 'mmpretrain':
            inferencer = ClassInferencer(cfg, device)
        else:
            raise SettingError(
                f"default_scope={scope!r}: 'mmdet', 'mmseg' or 'mmpretrain' is needed to draw what a model finds"
            )
    load_weights(inferencer.model, find_state_dict(read, checkpoint), checkpoint, strict=True)
    inferencer.model.dataset_meta = inferencer.visualizer.dataset_meta = find_meta(cfg, read)
    return inferencer


def load_images(
    inferencer: BaseInferencer, images: Iterator[Image], batch: int, failures: dict[str, str]
) -> Iterator[tuple[list[Image], list[dict]]]:
    """Yields up to ``batch`` images at a time with what the config's test pipeline makes of them.

    Those of a batch have one size: none is padded, which changes what a model finds, for another one's sake.

    Args:
        failures: Records the reason for each image that cannot be read.
    """
    while some := list(islice(images, batch)):
        loaded = []
        for image in some:
            try:
                loaded.append((image, inferencer.pipeline(image.path)))
            except Exception as error:  # whatever a decoder raises
                failures[image.source.place] = f'cannot be read: {str(error).partition(chr(10))[0]}'
        for _, group in groupby(loaded, key=lambda pair: pair[1]['inputs'].shape):
            yield tuple(zip(*group))
        for image in some:
            if image.temporary:
                Path(image.path).unlink()


@contextmanager
def write_json(path: Path, classes: tuple[str, ...]) -> Iterator[Callable[[dict], None]]:
    """A function that adds an image to the file at once, a line each: memory does not grow with their number."""
    with path.open('w') as file:
        file.write(f'{{"classes": {json.dumps(classes)}, "images": [')
        separator = '\n'

        def write(entry: dict) -> None:
            nonlocal separator
            file.write(separator + json.dumps(entry))
            separator = ',\n'

        try:
            yield write
        finally:  # what an interrupted run leaves is read, too
            file.write('\n]}\n')


class Pictures:
    """Writes pictures to a folder, those of a video's frames as a video."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.path: Path | None = None  # of the video that is being written
        self.video: cv2.VideoWriter | None = None

    def write(self, image: Image, picture: np.ndarray) -> Path:
        """Writes a picture (H, W, 3) in RGB, and returns its place.

        Raises:
            SettingError: OpenCV cannot write videos here.
        """
        picture = picture[..., ::-1]
        if image.frame is None:
            path = self.folder / f'{image.source.name}{".png" if image.source.suffix == ".png" else ".jpg"}'
            mmcv.imwrite(picture, str(path))
            return path
        path = self.folder / f'{image.source.name}.mp4'
        if path != self.path:
            self.close()
            size = picture.shape[1::-1]
            self.path = path
            self.video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'mp4v'), image.fps, size)
            if not self.video.isOpened():
                raise SettingError(f'OpenCV cannot write {path} here: give pictures in place of a video')
        self.video.write(np.ascontiguousarray(picture))
        return path

    def close(self) -> None:
        if self.video is not None:
            self.video.release()


def find_objects(inferencer: BaseInferencer, sample: BaseDataElement, score_thr: float) -> list[dict]:
    """What a detector found with a score above ``score_thr``, for the JSON."""
    sample.pred_instances = sample.pred_instances[sample.pred_instances.scores > score_thr]
    fields = inferencer.pred2dict(sample)
    classes = inferencer.model.dataset_meta['classes']
    objects = [
        {'class': classes[label], 'score': round(score, 4), 'box': [round(side, 2) for side in box]}
        for label, score, box in zip(fields['labels'], fields['scores'], fields['bboxes'])
    ]
    for entry, mask in zip(objects, fields.get('masks', ())):
        entry['mask'] = mask
    return objects


def find_classes(classes: tuple[str, ...], sample: BaseDataElement) -> list[dict]:
    """The likeliest classes of an image, at most five, the likeliest first, for the JSON."""
    scores, labels = sample.pred_score.topk(min(5, len(classes)))
    return [
        {'class': classes[label], 'score': round(score, 4)} for label, score in zip(labels.tolist(), scores.tolist())
    ]


def write_label_map(inferencer: BaseInferencer, sample: BaseDataElement, path: Path) -> None:
    """Writes a segmenter's label map as a PNG (mode P) whose palette is that of the classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    label_map = PILImage.fromarray(sample.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8))
    label_map.putpalette(np.uint8(inferencer.model.dataset_meta['palette']).tobytes())
    label_map.save(path)


def predict(inferencer: BaseInferencer, sources: list[Source], out: Path, score_thr: float, batch: int) -> None:
    """Looks at images and writes what is found, with pictures of it.

    Args:
        inferencer: From :func:`load_inferencer`.
        sources: From :func:`pvt_mm.commands.sources.find_sources`.
        out: Folder to write to.
        score_thr: Objects with a higher score are written and drawn.
        batch: Images at a time.

    Raises:
        SettingError: Some images could not be read: the message names them, and all others are done.
    """
    classes, settings = inferencer.model.dataset_meta['classes'], {}
    is_detector = hasattr(inferencer, 'pred2dict')
    if is_detector:
        settings['pred_score_thr'] = score_thr
    elif not isinstance(inferencer, ClassInferencer) and len(classes) > 256:
        raise SettingError(f'the model has {len(classes)} classes, and a PNG with a palette holds 256')
    (out / 'vis').mkdir(parents=True, exist_ok=True)
    number, failures = 0, {}
    with (
        TemporaryDirectory() as scratch,
        write_json(out / 'predictions.json', classes) as write,
        closing(Pictures(out / 'vis')) as pictures,
    ):
        images = iter(track(read_images(sources, Path(scratch), failures), 'predict', count_images(sources)))
        for some, inputs in load_images(inferencer, images, batch, failures):
            samples = inferencer.forward(inferencer.collate_fn(inputs))
            drawn = inferencer.visualize([image.path for image in some], samples, return_vis=True, **settings)
            for image, sample, picture in zip(some, samples, drawn):
                entry = dict(file=image.source.place, width=sample.ori_shape[1], height=sample.ori_shape[0])
                if image.frame is not None:
                    entry['frame'] = image.frame
                entry['picture'] = str(pictures.write(image, picture).relative_to(out))
                if is_detector:
                    entry['objects'] = find_objects(inferencer, sample, score_thr)
                elif isinstance(inferencer, ClassInferencer):
                    entry['classes'] = find_classes(classes, sample)
                else:
                    frame = '' if image.frame is None else f'{image.frame:06}'
                    entry['label_map'] = str(Path('pred', image.source.name, frame)) + '.png'
                    write_label_map(inferencer, sample, out / entry['label_map'])
                write(entry)
                number += 1
    print(f'{number} images: {out}/vis, {out}/predictions.json')
    if failures:
        reasons = [f'{place} {reason}' for place, reason in failures.items()]
        raise SettingError(f'{len(failures)} could not be used:\n' + '\n'.join(reasons))


@one_line_errors
def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    if args.batch < 1:
        raise SettingError(f'--batch {args.batch} must be at least 1')
    check_ops()
    check_checkpoint(args.checkpoint)
    sources = find_sources(args.images)
    inferencer = load_inferencer(cfg, args.checkpoint, args.device)
    predict(inferencer, sources, Path(args.out), args.score_thr, args.batch)
