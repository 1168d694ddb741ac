"""The image files of a dataset: what mmcv's LoadImageFromFile, with its default settings, makes of each."""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image

from .findings import Findings, Kind
from .parallel import in_parallel

SAMPLE = 64  # images to decode, of all spread evenly
BIG = 2**27  # pixels from which on an image is not decoded for the check: 384 MiB in each process
MOST = 2**30  # pixels that OpenCV decodes, unless OPENCV_IO_MAX_IMAGE_PIXELS says more
LONG, LINE = 20, 2000  # ratios of the sides
TURNING = ('JPEG', 'MPO', 'PNG', 'TIFF', 'WEBP')  # the formats of whose EXIF orientation OpenCV knows
ORIENTATION = 0x0112  # the EXIF tag
END = {'JPEG': b'\xff\xd9', 'PNG': b'IEND'}  # what stands at the end of a file that is whole

MISSING = Kind('image-missing', 'image that does not exist', 'ends with FileNotFoundError', True)
FOLDER = Kind('image-folder', "folder with an image's name", 'ends with IsADirectoryError', True)
UNREADABLE = Kind('image-unreadable', 'image file that cannot be opened', 'ends with an error', True)
EMPTY = Kind('image-empty', 'image file of 0 bytes', 'ends with an error of OpenCV', True)
FORMAT = Kind('image-format', 'file in no format that OpenCV reads', 'ends with AssertionError', True)
DAMAGED = Kind('image-damaged', 'damaged or truncated image, which does not decode', 'ends with AssertionError', True)
CUT = Kind('image-cut', 'JPEG without its last part, which decodes', 'what is missing is grey', True)
CORRUPT = Kind('image-corrupt', 'JPEG with damaged data, which decodes', 'some pixels may be wrong', False)
HUGE = Kind('image-huge', 'image of more than 2^30 pixels', 'ends with an error of OpenCV', True)
LARGE = Kind(
    'image-large', 'image of more than 2^27 pixels (not decoded here)', 'takes 384 MiB and more per worker', False
)
SIZE = Kind(
    'image-size',
    'image of another size than its annotation says',
    'boxes and masks lie elsewhere, or the masks end it with an error',
    True,
)
TURNED = Kind(
    'image-exif',
    'image with an EXIF orientation',
    'the image is turned, the annotations are not: right only if they were made on the turned image',
    False,
)
TURNED_AWAY = Kind(
    'image-exif-size',
    'image that its EXIF orientation turns to another size than its annotation says',
    'the image is turned, the annotations are not: boxes and masks lie elsewhere',
    True,
)
DEEP = Kind('image-16-bit', 'image of 16 bits', 'only the high 8 bits are read: values below 256 are black', False)
CMYK = Kind('image-cmyk', 'image in CMYK', 'none: converted to RGB, without its colour profile', False)
PALETTE = Kind('image-palette', 'image with a palette', 'none: converted to RGB', False)
GREY = Kind('image-grey', 'image without colour', 'none: three equal channels', False)
ALPHA = Kind('image-alpha', 'image with transparency', 'transparency is dropped: hidden colours show', False)
FRAMES = Kind('image-frames', 'image of several frames or pages', 'only the first is read', False)
POINT = Kind('image-point', 'image with a side of 1 pixel', 'it is scaled up to stripes or one colour', False)
STRIP = Kind('image-long', 'image 20 to 2000 times as long as wide', 'it is scaled to a few pixels of width', False)
THREAD = Kind(
    'image-line', 'image over 2000 times as long as wide', 'Resize leaves no width: ends with an error of OpenCV', True
)
ENDING = Kind('image-name', "image whose name has another format's ending", 'none: the content decides', False)


def check_images(
    paths: Sequence[str],
    sizes: Mapping[str, tuple[int, int]] | None,
    decode: Literal['none', 'sample', 'all'],
    findings: Findings,
    log: Callable[[str], None],
) -> None:
    """Reads the header of every image, in parallel, and decodes a sample or all as training would.

    Args:
        paths: The images; one that is named twice is read once.
        sizes: (height, width) by path, as the annotations say; a path may lack.
        decode: Which images to decode. One that does not end as its format does is decoded in any case.
        findings: Receives the faults.
        log: Receives how many images were read and decoded.
    """
    paths = list(dict.fromkeys(map(str, paths)))
    step = dict(none=len(paths) + 1, sample=-(-len(paths) // SAMPLE) or 1, all=1)[decode]
    items = [(path, (sizes or {}).get(path), decode != 'none' and i % step == 0) for i, path in enumerate(paths)]
    for found in in_parallel(_check, items, 'images'):
        findings.update(found)
    log(f'{len(paths)} images: the header of each was read, and {sum(item[2] for item in items)} were decoded')


def read_size(path: str) -> tuple[int, int] | None:
    """(height, width) of an image as LoadImageFromFile gives it, from its header; None where that cannot be read."""
    try:
        with open(path, 'rb') as file:
            header = _read_header(file)
    except OSError:
        return None
    return header.size if header else None


class _Header(NamedTuple):
    format: str
    mode: str
    stored: tuple[int, int]  # (height, width)
    orientation: int
    is_deep: bool
    has_frames: bool

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as it is loaded."""
        return self.stored[::-1] if self.orientation > 4 else self.stored


def _read_header(file: BinaryIO) -> _Header | None:
    """None where Pillow does not know the file."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of odd metadata
        try:
            image = Image.open(file)
            # A PNG looks through its pixels for an EXIF block that it has not seen yet.
            has_exif = image.format in TURNING and ('exif' in image.info or image.format == 'TIFF')
            return _Header(
                format='JPEG' if image.format == 'MPO' else image.format,
                mode=image.mode,
                stored=image.size[::-1],
                orientation=image.getexif().get(ORIENTATION, 1) if has_exif else 1,
                is_deep=';16' in image.mode + str(image.tile[0].args) if image.tile else False,
                has_frames=getattr(image, 'is_animated', False) and image.format != 'MPO',
            )
        except Exception:  # foreign bytes: Pillow's plugins raise errors of any kind
            return None


def _check(items: list[tuple[str, tuple[int, int] | None, bool]]) -> Findings:
    Image.MAX_IMAGE_PIXELS = None  # in this process: only the header of a large image is read
    findings = Findings()
    with _stderr_in_file() as messages:
        for path, size, decode in items:
            for kind, detail in _look(path, size, decode, messages):
                findings.add(kind, f'{path}: {detail}' if detail else path)
    return findings


@contextmanager
def _stderr_in_file() -> Iterator[BinaryIO]:
    """What the decoders write to stderr: OpenCV does not tell of a damaged JPEG in any other way."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile(buffering=0) as file:
        os.dup2(file.fileno(), 2)
        try:
            yield file
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _look(path: str, size: tuple[int, int] | None, decode: bool, messages: BinaryIO) -> Iterator[tuple[Kind, str]]:
    """What is wrong with an image: the kinds, each with what the path does not tell."""
    try:
        with open(path, 'rb') as file:
            if os.fstat(file.fileno()).st_size:
                yield from _look_at_content(path, file, size, decode, messages)
            else:
                yield EMPTY, ''
    except FileNotFoundError:
        yield MISSING, ''
    except IsADirectoryError:
        yield FOLDER, ''
    except OSError as error:
        yield UNREADABLE, error.strerror


def _look_at_content(
    path: str, file: BinaryIO, size: tuple[int, int] | None, decode: bool, messages: BinaryIO
) -> Iterator[tuple[Kind, str]]:
    header = _read_header(file)
    if not cv2.haveImageReader(path):
        yield FORMAT, header.format if header else ''
        return
    pixels = header.stored[0] * header.stored[1] if header else 0
    if pixels > MOST:
        yield HUGE, _join(header.stored)
        return
    if pixels > BIG:
        yield LARGE, _join(header.stored)
    elif decode or header is None or header.mode in ('I', 'F') or not _ends_well(file, header.format):
        file.seek(0)
        shape, message = _decode(file.read(), messages)
        if shape is None:
            yield DAMAGED, ''
            return
        if b'premature end' in message:
            yield CUT, ''
        elif b'Corrupt JPEG' in message:
            yield CORRUPT, message.decode(errors='replace').strip()
        if header is None:
            header = _Header(Path(path).suffix[1:].upper(), 'RGB', shape, 1, False, False)
    yield from _look_at_header(path, size, header)


def _ends_well(file: BinaryIO, format: str) -> bool:
    """Whether the end of a JPEG or PNG is there; some cameras write more after it."""
    file.seek(-min(1024, os.fstat(file.fileno()).st_size), os.SEEK_END)
    return END.get(format, b'') in file.read()


def _decode(data: bytes, messages: BinaryIO) -> tuple[tuple[int, int] | None, bytes]:
    """The (height, width) of an image, decoded as LoadImageFromFile does, or None; and the decoder's messages."""
    messages.seek(0)
    messages.truncate()
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        pixels = None
    messages.seek(0)
    return None if pixels is None else pixels.shape[:2], messages.read()


def _look_at_header(path: str, size: tuple[int, int] | None, header: _Header) -> Iterator[tuple[Kind, str]]:
    fits = size is None or tuple(size) == header.size
    if not fits and tuple(size) == header.stored:
        yield TURNED_AWAY, f'loaded as {_join(header.size)}, the annotation says {_join(size)}'
    elif header.orientation != 1:
        yield TURNED, f'orientation {header.orientation}'
    if not fits and tuple(size) != header.stored:
        yield SIZE, f'{_join(header.size)}, the annotation says {_join(size)}'
    if header.is_deep:
        yield DEEP, header.mode
    short, long = sorted(header.stored)
    if short == 1:
        yield POINT, _join(header.stored)
    if long > LINE * short:
        yield THREAD, _join(header.stored)
    elif long > LONG * short:
        yield STRIP, _join(header.stored)
    if header.mode == 'CMYK':
        yield CMYK, ''
    if header.mode in ('P', 'PA'):
        yield PALETTE, ''
    if header.mode in ('1', 'L', 'LA'):
        yield GREY, ''
    if header.mode in ('LA', 'PA', 'RGBA'):
        yield ALPHA, ''
    if header.has_frames:
        yield FRAMES, header.format
    if _format_of(Path(path).suffix.lower()) not in (None, header.format):
        yield ENDING, header.format


@cache
def _format_of(suffix: str) -> str | None:
    return {'.mpo': 'JPEG'}.get(suffix, Image.registered_extensions().get(suffix))


def _join(size: Sequence[int]) -> str:
    return f'{size[0]}x{size[1]} (height x width)'
