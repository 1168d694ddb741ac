"""The images that a command looks at: files, folders, globs, addresses, and the frames of videos."""

import glob
import os
import shutil
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlparse

import mmcv

from ..errors import SettingError

IMAGES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')  # as in mmdet's inferencer
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv')
TIMEOUT = 30  # seconds without an answer, after which an address is given up


class Source(NamedTuple):
    """An image or a video: a file or an address, and a name that no other source has."""

    place: str
    name: str

    @property
    def suffix(self) -> str:
        return _path(self.place).suffix.lower()

    @property
    def is_video(self) -> bool:
        return self.suffix in VIDEOS


class Image(NamedTuple):
    """An image file. Those of addresses and videos are ``temporary``; ``frame`` (from 0) and ``fps`` are a video's."""

    source: Source
    path: str
    temporary: bool = False
    frame: int | None = None
    fps: float | None = None


def find_sources(places: list[str]) -> list[Source]:
    """The images and videos that ``places`` name, each once.

    Args:
        places: Files; folders, whose images are taken in the order of their names, but not those of folders inside;
            globs, ``**`` included; addresses (http, https).

    Raises:
        SettingError: A file is missing, or a folder or glob has no image.
    """
    found = []
    for place in places:
        if _is_address(place) or os.path.isfile(place):
            matches = [place]
        elif os.path.isdir(place):
            matches = _known(map(str, Path(place).iterdir()), IMAGES)
        elif glob.has_magic(place):
            matches = _known(glob.glob(place, recursive=True), IMAGES + VIDEOS)
        else:
            raise SettingError(f'image {place} does not exist')
        if not matches:
            raise SettingError(f"{place} holds no image; for folders inside a folder give 'FOLDER/**'")
        found += matches
    sources, taken = [], set()
    for place in dict.fromkeys(found):
        name = stem = _path(place).stem or 'image'
        number = 1
        while name in taken:
            number += 1
            name = f'{stem}_{number}'
        taken.add(name)
        sources.append(Source(place, name))
    return sources


def count_images(sources: list[Source]) -> int:
    """How many images :func:`read_images` is going to yield, as far as that is known without fetching any."""
    return sum(
        mmcv.VideoReader(source.place).frame_cnt if source.is_video and not _is_address(source.place) else 1
        for source in sources
    )


def read_images(sources: list[Source], scratch: Path, failures: dict[str, str]) -> Iterator[Image]:
    """Yields the images one by one, and has one at a time on the disk of an address or a video.

    Args:
        sources: From :func:`find_sources`.
        scratch: Folder for temporary files. The caller removes those of the images when it is done with them.
        failures: Records the reason for each source that cannot be fetched or opened.
    """
    for source in sources:
        path, temporary = source.place, _is_address(source.place)
        if temporary:
            path = str(scratch / f'{source.name}{source.suffix}')
            try:
                with urllib.request.urlopen(source.place, timeout=TIMEOUT) as answer, open(path, 'wb') as file:
                    shutil.copyfileobj(answer, file)
            except (OSError, ValueError, HTTPException) as error:  # ValueError: no address at all
                failures[source.place] = f'cannot be fetched: {error}'
                continue
        if not source.is_video:
            yield Image(source, path, temporary)
            continue
        video, frame = mmcv.VideoReader(path), None
        for frame, pixels in enumerate(video):
            path = str(scratch / f'{source.name}-{frame}.bmp')  # for the loader of the config's pipeline, and lossless
            mmcv.imwrite(pixels, path)
            yield Image(source, path, True, frame, video.fps or 25)
        if frame is None:
            failures[source.place] = 'OpenCV reads no frame of it'


def _is_address(place: str) -> bool:
    return place.startswith(('http://', 'https://'))


def _path(place: str) -> Path:
    return Path(unquote(urlparse(place).path) if _is_address(place) else place)


def _known(files, suffixes: tuple[str, ...]) -> list[str]:
    return sorted(file for file in files if Path(file).suffix.lower() in suffixes and os.path.isfile(file))
