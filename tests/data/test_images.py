"""What is said of image files, and that mmcv loads them as is said."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile, Resize
from PIL import Image

from pvt_mm.data.findings import Findings
from pvt_mm.data.images import check_images, read_size

PICTURE = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (64, 48))  # RGB, smooth


def encode(format, mode='RGB', pixels=PICTURE, orientation=1, **settings) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, format, exif=exif, **settings)
    return file.getvalue()


def encode16(pixels) -> bytes:
    return cv2.imencode('.png', pixels.astype(np.uint16))[1].tobytes()


def frames(format) -> bytes:
    return encode(format, save_all=True, append_images=[Image.fromarray(255 - PICTURE)])


def clear() -> bytes:
    """A picture all of whose pixels are transparent."""
    return encode('PNG', 'RGBA', np.dstack([PICTURE, np.zeros((48, 64), np.uint8)]))


def header_of_a_large_png(width, height) -> bytes:
    return encode('PNG', '1', np.zeros((height, width), np.uint8))


JPEG, PNG = encode('JPEG'), encode('PNG')
TIFF_OF_FLOATS = cv2.imencode('.tif', np.random.default_rng(0).random((48, 64), np.float32))[1].tobytes()


def is_picture(image) -> bool:
    """Whether a loaded image (BGR) is the picture, but for what JPEG loses."""
    return image.shape == PICTURE.shape and np.abs(image[..., ::-1].astype(int) - PICTURE).mean() < 15


def is_grey_below(image) -> bool:
    return image[:8].std() > 30 and image[-8:].std() < 3


def is_grey(image) -> bool:
    return image.shape == PICTURE.shape and (image == image[..., :1]).all()


def is_exact(image) -> bool:
    return np.array_equal(image[..., ::-1], PICTURE)


class Row(NamedTuple):
    name: str
    content: bytes | None | Callable[[Path], object]  # of the file; a function makes it
    kinds: tuple[str, ...]
    loaded: type[Exception] | Callable[[np.ndarray], bool]  # what loading raises, or what holds for the image
    size: tuple[int, int] | None = None  # of the annotation


ROWS = [
    Row('whole.jpg', JPEG, (), is_picture, (48, 64)),
    Row('whole.png', PNG, (), is_exact),
    Row('trailing.jpg', JPEG + b'more' * 100, (), is_picture),
    Row('missing.jpg', None, ('image-missing',), FileNotFoundError),
    Row('folder.jpg', Path.mkdir, ('image-folder',), IsADirectoryError),
    Row('empty.jpg', b'', ('image-empty',), cv2.error),
    Row('text.jpg', b'<html>404</html>', ('image-format',), AssertionError),
    Row('drawing.svg', b'<svg width="1" height="1"/>', ('image-format',), AssertionError),
    Row('phone.heic', b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(99), ('image-format',), AssertionError),
    Row('known.tga', encode('TGA'), ('image-format',), AssertionError),
    Row('half.jpg', JPEG[: len(JPEG) // 2], ('image-damaged',), AssertionError),
    Row('no_end.jpg', JPEG[:-2], ('image-damaged',), AssertionError),
    Row('half.png', PNG[: len(PNG) // 2], ('image-damaged',), AssertionError),
    Row('half.webp', encode('WEBP')[:200], ('image-damaged',), AssertionError),
    Row('flipped.png', PNG[:500] + bytes([PNG[500] ^ 255]) + PNG[501:], ('image-damaged',), AssertionError),
    Row('floats.tif', TIFF_OF_FLOATS, ('image-damaged',), AssertionError),
    # OpenCV decodes these two. What the first lacks is grey.
    Row('cut.jpg', JPEG[: len(JPEG) * 2 // 3] + b'\xff\xd9', ('image-cut',), is_grey_below),
    Row('extra.jpg', JPEG[:-2] + bytes(9) + b'\xff\xd9', ('image-corrupt',), is_picture),
    Row('other_size.jpg', JPEG, ('image-size',), is_picture, (48, 63)),
    Row('turned.jpg', encode('JPEG', orientation=6), ('image-exif',), lambda image: image.shape == (64, 48, 3)),
    Row(
        'fits.jpg', encode('JPEG', orientation=6), ('image-exif',), lambda image: image.shape[:2] == (64, 48), (64, 48)
    ),
    Row(
        'turned.png', encode('PNG', orientation=3), ('image-exif',), lambda image: is_exact(image[::-1, ::-1]), (48, 64)
    ),
    Row('away.jpg', encode('JPEG', orientation=8), ('image-exif-size',), lambda image: image.shape[0] == 64, (48, 64)),
    Row('not_turned.avif', encode('AVIF', orientation=6), (), is_picture, (48, 64)),
    Row('deep.png', encode16(PICTURE[..., ::-1].astype(np.uint16) * 256), ('image-16-bit',), is_exact),
    Row('dark.png', encode16(PICTURE[..., 0]), ('image-16-bit',), lambda image: not image.any()),
    Row('print.jpg', encode('JPEG', 'CMYK'), ('image-cmyk',), is_picture),
    Row('palette.png', encode('PNG', 'P'), ('image-palette',), is_picture),
    Row('grey.jpg', encode('JPEG', 'L'), ('image-grey',), is_grey),
    Row('bits.png', encode('PNG', '1'), ('image-grey',), is_grey),
    Row('clear.png', clear(), ('image-alpha',), is_exact),
    Row('grey_alpha.png', encode('PNG', 'LA'), ('image-grey', 'image-alpha'), is_grey),
    Row('moving.gif', frames('GIF'), ('image-palette', 'image-frames'), is_picture),
    Row('moving.webp', frames('WEBP'), ('image-frames',), is_picture),
    Row('pages.tif', frames('TIFF'), ('image-frames',), is_exact),
    Row('point.png', encode('PNG', pixels=PICTURE[:1, :1]), ('image-point',), lambda image: image.shape == (1, 1, 3)),
    Row('long.png', encode('PNG', pixels=PICTURE[:2]), ('image-long',), lambda image: image.shape == (2, 64, 3)),
    Row(
        'line.png',
        encode('PNG', pixels=np.zeros((1, 3000, 3), np.uint8)),
        ('image-point', 'image-line'),
        lambda image: image.shape == (1, 3000, 3),
    ),
    Row('large.png', header_of_a_large_png(2**14, 2**13 + 1), ('image-large', 'image-grey'), lambda image: True),
    Row('huge.png', header_of_a_large_png(2**15, 2**15 + 1), ('image-huge',), cv2.error),
    Row('really_a.jpg', PNG, ('image-name',), is_exact),
]


def check(paths, sizes=None, decode='all') -> Findings:
    findings = Findings()
    check_images([str(path) for path in paths], sizes, decode, findings, lambda line: None)
    return findings


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.name)
def test_what_is_said_of_an_image_is_what_loading_does(tmp_path, row):
    path = tmp_path / row.name
    if callable(row.content):
        row.content(path)
    elif row.content is not None:
        path.write_bytes(row.content)
    findings = check([path], {str(path): row.size} if row.size else None)
    assert tuple(kind.name for kind in findings.numbers) == row.kinds
    assert all(examples[0].startswith(str(path)) for examples in findings.examples.values())

    def load():
        return LoadImageFromFile().transform(dict(img_path=str(path)))['img']

    if isinstance(row.loaded, type):
        assert findings.serious
        with pytest.raises(row.loaded):
            load()
    else:
        assert row.loaded(load())
        if read_size(path) is not None:
            assert read_size(path) == load().shape[:2]


def write(folder, number, content=JPEG) -> list[str]:
    paths = [str(folder / f'{i:03}.jpg') for i in range(number)]
    for path in paths:
        Path(path).write_bytes(content)
    return paths


def test_all_images_are_looked_at_once_and_examples_come_in_order(tmp_path):
    paths = write(tmp_path, 100)
    lost = paths[3::10]
    for path in lost:
        Path(path).unlink()
    [(kind, number)] = (findings := check([*paths, *paths])).numbers.items()
    assert number == 10 and findings.examples[kind] == lost[:5]


def test_a_sample_or_all_or_none_are_decoded(tmp_path):
    spoilt = bytearray(PNG)
    spoilt[500] ^= 255  # its end is that of a PNG: only decoding tells
    paths = write(tmp_path, 130, bytes(spoilt))
    said = {}
    for decode in ('none', 'sample', 'all'):
        findings, lines = Findings(), []
        check_images(paths, None, decode, findings, lines.append)
        said[decode] = sum(number for kind, number in findings.numbers.items() if kind.name == 'image-damaged')
        assert lines == [f'130 images: the header of each was read, and {said[decode]} were decoded']
    assert said == dict(none=0, sample=44, all=130)


def test_an_image_that_breaks_off_is_found_without_decoding(tmp_path):
    paths = [*write(tmp_path, 9), tmp_path / 'half.jpg', tmp_path / 'half.png']
    paths[-2].write_bytes(JPEG[:-200])
    paths[-1].write_bytes(PNG[:-200])
    assert [(kind.name, number) for kind, number in check(paths, decode='none').numbers.items()] == [
        ('image-damaged', 2)
    ]


def test_no_images_are_no_fault():
    assert check([]).numbers == {}


def test_real_coco_images_are_whole(real_coco):
    paths, sizes = [], {}
    for split in ('train2017', 'val2017'):
        for image in json.loads((real_coco / 'annotations' / f'instances_{split}.json').read_text())['images']:
            paths.append(path := str(real_coco / split / image['file_name']))
            sizes[path] = image['height'], image['width']
    assert check(paths, sizes).numbers == {}


def test_real_ade20k_images_are_whole(real_ade):
    assert check(real_ade.glob('images/*/*.jpg')).numbers == {}


def test_a_line_ends_in_resize_and_a_long_image_does_not():
    def resized(height, width):
        return Resize((1333, 800), keep_ratio=True)(dict(img=np.zeros((height, width, 3), np.uint8)))['img'].shape[:2]

    assert resized(20, 40000) == (1, 1333)
    with pytest.raises(cv2.error):
        resized(1, 3000)
