"""Videos and cameras: frame by frame through OpenCV, never the whole in memory."""

import os
import stat
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import cv2
import numpy as np

from rfla.data.image_header import refuse_too_large
from rfla.data.images import Image
from rfla.errors import DataError
from rfla.files import for_opencv, foreign_content, open_regular
from rfla.predict.source_image import Reading, Source, SourceImage, picture

# OpenCV's decoder writes its own complaints otherwise; what cannot be read, we say ourselves.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})
MISSING = 0.02  # of the frames that a header counts; some writers only estimate them


def is_video(path: Path) -> bool:
    """Whether the name looks like a video; hidden files do not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


@dataclass(frozen=True)
class Video:
    """A video file.

    Attributes:
        name: Its path, or the address that it was fetched from.
        relative: Its place below the source.
        file: Where it lies.
    """

    name: str
    relative: Path
    file: Path

    def expected(self, how: Reading) -> int:
        """Return the frames that the header counts, or 1."""
        try:
            with _opened_video(self.file, self.name) as capture:
                return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) // how.stride, 1)
        except DataError:
            return 1

    def images(self, how: Reading) -> Iterator[SourceImage]:
        """Yield every `how.stride`-th frame that can be read, then why the rest cannot."""
        try:
            with _opened_video(self.file, self.name) as capture:
                expected = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
                read = yield from _frames(self, capture, how.stride)
                if read < expected * (1 - MISSING) - 2 or not read:
                    found = f"{read} of {max(expected, 0)} frames can be read"
                    raise DataError(f"{self.name}: {found}; the file is truncated there")
        except DataError as error:
            yield picture(self, error)


@dataclass(frozen=True)
class Camera:
    """A camera of this machine, by its number.

    Attributes:
        number: As the system counts them.
    """

    number: int

    @property
    def name(self) -> str:
        """A made-up name."""
        return f"camera{self.number}"

    @property
    def relative(self) -> Path:
        """How its frames are named."""
        return Path(f"{self.name}.png")

    def expected(self, how: Reading) -> int:
        """Return 1: a camera does not end."""
        return 1

    def images(self, how: Reading) -> Iterator[SourceImage]:
        """Yield every `how.stride`-th frame until the camera stops."""
        try:
            require_camera(self.number)
            with _released(cv2.VideoCapture(self.number)) as capture:
                began, count = monotonic(), 0
                for image in _frames(self, capture, how.stride):
                    count += 1
                    yield replace(image, seconds=monotonic() - began)
                if not count:
                    raise DataError(f"source={self.number}: the camera delivers no frames")
        except DataError as error:
            yield picture(self, error)


def require_camera(number: int) -> None:
    """Refuse the number of a camera that is not there, where the system lists cameras.

    Raises:
        DataError: With the cameras that there are.
    """
    device = Path(f"/dev/video{number}")
    if not sys.platform.startswith("linux"):
        return
    if device.exists() and stat.S_ISCHR(device.stat().st_mode):
        return
    found = sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video[0-9]*"))
    known = f"there are {', '.join(found)}" if found else "there is none"
    raise DataError(f"source={number}: no camera {number} on this machine ({known})")


def require_video(path: Path, name: str) -> None:
    """Refuse a file that is no video, before a decoder sees it.

    To a decoder, lists of addresses and of other files are videos too: it goes by the content.

    Raises:
        DataError: No regular file, empty, or of no known format.
    """
    with open_regular(path) as file:
        head = file.read(1024)
    if not is_video_content(head):
        what = "empty file" if not head else foreign_content(head) or "no known format"
        raise DataError(f"{name}: not a readable video ({what})")


def is_video_content(head: bytes) -> bool:
    """Tell whether a file begins as MP4 and MOV, AVI, Matroska and WebM, or MPEG do."""
    return (
        (head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"))
        or (head[:4] == b"RIFF" and head[8:11] == b"AVI")
        or head[:4] in (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3")
    )


@contextmanager
def _opened_video(path: Path, name: str) -> Iterator[cv2.VideoCapture]:
    """Open a video for reading.

    Raises:
        DataError: It is none, or its frames are larger than `max_pixels`.
    """
    require_video(path, name)
    with _released(cv2.VideoCapture(for_opencv(path), cv2.CAP_FFMPEG)) as capture:
        if not capture.isOpened():
            raise DataError(f"{name}: not a readable video (damaged, or of an unknown codec)")
        sides = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        try:
            refuse_too_large(*(int(capture.get(side)) for side in sides))
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        yield capture


@contextmanager
def _released(capture: cv2.VideoCapture) -> Iterator[cv2.VideoCapture]:
    try:
        yield capture
    finally:
        capture.release()


def _frames(source: Source, capture: Any, stride: int) -> Generator[SourceImage, None, int]:
    """Yield every `stride`-th frame; return how many there were with those between."""
    index = 0
    while capture.grab():
        if index % stride == 0:
            seconds = float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
            good, bgr = capture.retrieve()
            if not good:
                break
            yield picture(source, _as_rgb(bgr), index, seconds)
        index += 1
    return index


def _as_rgb(bgr: Image) -> Image:
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
