"""Draws what a file of ``tools/export.py --to onnx`` finds in an image. It needs no PyTorch, and no other file."""

import argparse
import json

import cv2
import numpy as np
import onnxruntime


def resize(image: np.ndarray, steps: list) -> np.ndarray:
    for kind, *numbers in steps:
        height, width = image.shape[:2]
        if kind == 'fit':
            factor = min(max(numbers) / max(height, width), min(numbers) / min(height, width))
            numbers = int(width * factor + 0.5), int(height * factor + 0.5)
        elif kind == 'multiple':
            numbers = [-(-side // numbers[0]) * numbers[0] for side in (width, height)]
        image = cv2.resize(image, numbers)
    return image


def paste(mask: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    weights = []
    for first, last, length in ((box[0], box[2], width), (box[1], box[3], height)):
        places = (np.arange(length) + 0.5 - first) / max(last - first, 1e-6) * len(mask) - 0.5
        weights.append(np.maximum(0, 1 - np.abs(places[:, None] - np.arange(len(mask)))))
    return weights[1] @ mask @ weights[0].T >= 0.5


def draw(image: np.ndarray, found: dict, meta: dict, factors: list, score_thr: float = 0.3) -> np.ndarray:
    colours = [colour[::-1] for colour in meta['palette']]
    if meta['task'] == 'segmentation':
        labels = cv2.resize(found['labels'], image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        return cv2.addWeighted(image, 0.5, np.array(colours, np.uint8)[labels], 0.5, 0)
    for i in np.flatnonzero(found['scores'] > score_thr):
        box, colour = found['boxes'][i] / (factors * 2), colours[found['labels'][i]]
        if 'masks' in found:
            mask = paste(found['masks'][i], box, *image.shape[:2])
            image[mask] = image[mask] // 2 + np.array(colour, np.uint8) // 2
        cv2.rectangle(image, *np.intp(box.round()).reshape(2, 2).tolist(), colour, 2)
        text = f'{meta["classes"][found["labels"][i]]} {found["scores"][i]:.2f}'
        cv2.putText(image, text, np.intp(box[:2] + (2, 14)).tolist(), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1)
        print(text, *box.round(1).tolist())
    return image


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ('model', 'image', 'out'):
        parser.add_argument(name)
    args = parser.parse_args()
    session = onnxruntime.InferenceSession(args.model)
    meta, image = json.loads(session.get_modelmeta().custom_metadata_map['pvt_mm']), cv2.imread(args.image)
    small = resize(image, meta['resize'])
    factors = [small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]]
    outputs = session.run(None, {'images': small[None]})
    cv2.imwrite(args.out, draw(image, {name: out[0] for name, out in zip(meta['outputs'], outputs)}, meta, factors))
