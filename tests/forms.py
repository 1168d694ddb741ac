"""The embedded digits in the forms that people's own data come in."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

DIGITS = tuple('0123456789')


@dataclass
class Scene:
    """A scene of the digits: ``objects`` holds name, box (x, y, width, height) and polygons of each."""

    name: str
    split: str
    jpg: bytes
    labels: np.ndarray  # 0 background, 1 to 10 digits, 255 void
    objects: list[tuple[str, list[float], list[list[float]]]]

    @property
    def size(self) -> tuple[int, int]:
        return self.labels.shape


def read_scenes(digits: Path) -> list[Scene]:
    scenes = []
    for split, coco, ade in (('train', 'train2017', 'training'), ('val', 'val2017', 'validation')):
        content = json.loads((digits / f'coco/annotations/instances_{coco}.json').read_text())
        for image in content['images']:
            stem, objects = Path(image['file_name']).stem, []
            for item in content['annotations']:
                if item['image_id'] == image['id']:
                    contours, _ = cv2.findContours(
                        coco_mask.decode(item['segmentation']), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
                    )
                    polygons = [(c.reshape(-1) + 0.5).tolist() for c in contours if cv2.contourArea(c) > 0]
                    objects.append((DIGITS[item['category_id'] - 1], item['bbox'], polygons))
            labels = cv2.imread(
                str(digits / f'ADEChallengeData2016/annotations/{ade}/{stem}.png'), cv2.IMREAD_UNCHANGED
            )
            jpg = (digits / 'coco' / coco / image['file_name']).read_bytes()
            scenes.append(Scene(f'{split}_{stem}', split, jpg, labels - np.uint8(1), objects))
    return scenes


def write_voc(root: Path, scenes: list[Scene]) -> None:
    for scene in scenes:
        _write(root / f'JPEGImages/{scene.name}.jpg', scene.jpg)
        xml = ET.Element('annotation')
        ET.SubElement(xml, 'filename').text = f'{scene.name}.jpg'
        size = ET.SubElement(xml, 'size')
        for key, value in zip(('height', 'width', 'depth'), (*scene.size, 3)):
            ET.SubElement(size, key).text = str(value)
        for name, (x, y, width, height), _ in scene.objects:
            item = ET.SubElement(xml, 'object')
            ET.SubElement(item, 'name').text = name
            ET.SubElement(item, 'difficult').text = '0'
            box = ET.SubElement(item, 'bndbox')
            # pixels counted from 1, the last one included
            for key, value in dict(xmin=x + 1, ymin=y + 1, xmax=x + width, ymax=y + height).items():
                ET.SubElement(box, key).text = str(int(value))
        _write(root / f'Annotations/{scene.name}.xml', ET.tostring(xml))
    for split in ('train', 'val'):
        names = [scene.name for scene in scenes if scene.split == split]
        _write(root / f'ImageSets/Main/{split}.txt', '\n'.join(names).encode())


def write_yolo(root: Path, scenes: list[Scene], polygons: bool = False) -> None:
    for scene in scenes:
        _write(root / f'images/{scene.split}/{scene.name}.jpg', scene.jpg)
        (height, width), lines = scene.size, []
        for name, (x, y, w, h), outlines in scene.objects:
            if polygons:
                values = [value / (width, height)[i % 2] for i, value in enumerate(max(outlines, key=len))]
            else:
                values = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
            lines.append(' '.join(map(str, [DIGITS.index(name), *values])))
        _write(root / f'labels/{scene.split}/{scene.name}.txt', '\n'.join(lines).encode())
    names = ''.join(f"  {number}: '{name}'\n" for number, name in enumerate(DIGITS))
    _write(root / 'data.yaml', f'path: .\ntrain: images/train\nval: images/val\nnames:\n{names}'.encode())


def write_labelme(root: Path, scenes: list[Scene], polygons: bool = True) -> None:
    """Without a split. The parts of one digit are shapes of one group."""
    for scene in scenes:
        shapes = []
        for group, (name, (x, y, w, h), outlines) in enumerate(scene.objects):
            kind, parts = 'polygon', outlines
            if not polygons:
                kind, parts = 'rectangle', [[x + w, y, x, y + h]]  # drawn from any corner
            for part in parts:
                points = np.reshape(part, (-1, 2)).tolist()
                shapes.append(dict(label=name, points=points, group_id=group, shape_type=kind, flags={}))
        _write(root / f'{scene.name}.jpg', scene.jpg)
        (height, width), path = scene.size, f'{scene.name}.jpg'
        content = dict(version='5.4.1', shapes=shapes, imagePath=path, imageHeight=height, imageWidth=width)
        _write(root / f'{scene.name}.json', json.dumps(content).encode())


def write_coco(root: Path, scenes: list[Scene]) -> None:
    for split in ('train', 'val'):
        chosen = [scene for scene in scenes if scene.split == split]
        for scene in chosen:
            _write(root / split / f'{scene.name}.jpg', scene.jpg)
        _write(root / f'annotations/{split}.json', json.dumps(as_coco(chosen)).encode())


def write_masks(root: Path, scenes: list[Scene]) -> None:
    """Without a split."""
    for scene in scenes:
        _write(root / f'images/{scene.name}.jpg', scene.jpg)
        _write(root / f'masks/{scene.name}.png', cv2.imencode('.png', scene.labels)[1].tobytes())
    _write(root / 'classes.txt', '\n'.join(('background', *DIGITS)).encode())


FORMS: dict[str, Callable[[Path, list[Scene]], None]] = dict(
    coco=write_coco, voc=write_voc, yolo=write_yolo, labelme=write_labelme, masks=write_masks
)


def as_coco(scenes: list[Scene]) -> dict:
    images, annotations = [], []
    for number, scene in enumerate(scenes, 1):
        height, width = scene.size
        images.append(dict(id=number, file_name=f'{scene.name}.jpg', height=height, width=width))
        for name, bbox, polygons in scene.objects:
            category = DIGITS.index(name) + 1
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=category,
                    bbox=bbox,
                    area=bbox[2] * bbox[3],
                    iscrowd=0,
                    segmentation=polygons,
                )
            )
    categories = [dict(id=number, name=name) for number, name in enumerate(DIGITS, 1)]
    return dict(images=images, annotations=annotations, categories=categories)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
