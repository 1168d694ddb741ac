"""Draws what a file of ``tools/export.py --to onnx`` finds in an image. It needs no PyTorch, and no other file."""

import argparse
import json
import sys

import cv2
import numpy as np
import onnxruntime


def resize(image: np.ndarray, steps: list) -> np.ndarray:
    for kind, *step in steps:
        height, width = image.shape[:2]
        edges = dict(short=min(height, width), long=max(height, width))
        if kind == 'crop':
            x, y = (max(0, round((side - length) / 2)) for side, length in zip((width, height), step))
            image = image[y : y + step[1], x : x + step[0]]
            continue
        if kind == 'fit':
            factor = min(max(step[:2]) / edges['long'], min(step[:2]) / edges['short'])
            size = int(width * factor + 0.5), int(height * factor + 0.5)
        elif kind == 'multiple':
            size = [-(-side // step[0]) * step[0] for side in (width, height)]
        else:
            size = step[:2] if kind == 'stretch' else [int(step[0] * side / edges[kind]) for side in (width, height)]
        how = step[-1] if isinstance(step[-1], str) else 'bilinear'
        if 'pillow' in step:
            from PIL import Image

            image = np.array(Image.fromarray(image).resize(size, Image.Resampling[how.upper()]))
        else:
            image = cv2.resize(
                image, size, interpolation=['nearest', 'bilinear', 'bicubic', 'area', 'lanczos'].index(how)
            )
    return image


def draw(image: np.ndarray, found: dict, meta: dict, factors: list, score_thr: float = 0.3) -> None:
    colours = np.array(meta.get('palette', []), np.uint8).reshape(-1, 3)[:, ::-1]
    if meta['task'] == 'segmentation':
        labels = found['labels'] if 'labels' in found else found['logits'].argmax(0).astype(np.int32)
        image[:] = image // 2 + colours[cv2.resize(labels, image.shape[1::-1], interpolation=0)] // 2
        return
    if meta['task'] == 'classification':
        for i in found['scores'].argsort()[::-1][:5]:
            print(f'{meta["classes"][i] if "classes" in meta else i} {found["scores"][i]:.3f}')
        return
    for i in np.flatnonzero(found['scores'] > score_thr):
        box, colour = found['boxes'][i] / (factors * 2), colours[found['labels'][i]]
        x1, y1, x2, y2 = box.round().astype(int)
        if 'masks' in found and min(x2 - x1, y2 - y1) > 0:
            place = image[y1:y2, x1:x2]
            inside = cv2.resize(found['masks'][i], (x2 - x1, y2 - y1)) >= meta['mask_thr']
            place[inside] = place[inside] // 2 + colour // 2
        text = f'{meta["classes"][found["labels"][i]]} {found["scores"][i]:.2f}'
        cv2.rectangle(image, (x1, y1), (x2, y2), colour.tolist(), 2)
        cv2.putText(image, text, (x1 + 2, y1 + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour.tolist(), 1)
        print(text, *box.round(1).tolist())


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ('model', 'image', 'out'):
        parser.add_argument(name)
    args = parser.parse_args()
    session, image = onnxruntime.InferenceSession(args.model), cv2.imread(args.image)
    if image is None:
        sys.exit(f'{args.image} is no image that OpenCV reads')
    meta = json.loads(session.get_modelmeta().custom_metadata_map['pvt_mm'])
    small = resize(cv2.imread(args.image, 0) if meta['channels'] == 1 else image, meta['resize'])
    outputs = session.run(None, {'images': small.reshape(1, *small.shape[:2], -1)})
    factors = [small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]]
    draw(image, {name: output[0] for name, output in zip(meta['outputs'], outputs)}, meta, factors)
    cv2.imwrite(args.out, image)
