"""Files of several images: the pages of a TIFF, the frames of a GIF, APNG or WebP.

Images are (H, W, 3) uint8 RGB, as `read_image` gives them.
"""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image as PillowImage

from rfla.data.image_header import FORMATS, PNG, header_of_tiff, refuse_too_large
from rfla.data.images import Image, decode_image, header_of
from rfla.data.pixel_range import Range
from rfla.data.tiff import as_first_page, is_tiff, read_tiff_pages
from rfla.errors import DataError, one_line
from rfla.files import open_regular, read_regular

SUFFIXES = frozenset({".tif", ".tiff", ".gif", ".webp", ".png"})  # of files that may hold several


@dataclass(frozen=True)
class Page:
    """One image of a file.

    Attributes:
        index: Its place, from 0.
        pixels: (H, W, 3) uint8 RGB, or why it cannot be read.
        seconds: When it is shown, for frames of an animation.
        remarks: As of `read_image`.
    """

    index: int
    pixels: Image | DataError
    seconds: float | None = None
    remarks: tuple[str, ...] = ()


def holds_several(path: Path) -> bool:
    """Whether a file is an image file of several pages or frames, from its headers."""
    if path.suffix.lower() not in SUFFIXES:
        return False
    try:
        with open_regular(path) as file:
            start = file.read(8)
            if is_tiff(start):
                return len(read_tiff_pages(file)) > 1
            if start == PNG and not _is_animated_png(file):
                return False
            file.seek(0)
            with PillowImage.open(file, formats=FORMATS) as image:
                return getattr(image, "n_frames", 1) > 1
    except Exception:  # Pillow's plugins raise what they like; who reads the file says why
        return False


def _is_animated_png(file: BinaryIO) -> bool:
    """Tell whether a PNG has the chunk of animations, which stands before its pixels."""
    while len(head := file.read(8)) == 8 and head[4:] != b"IDAT":
        if head[4:] == b"acTL":
            return True
        file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return False


def read_pages(path: Path, value_range: Range | None = None, stride: int = 1) -> Iterator[Page]:
    """Yield the images of a file one by one; a page that cannot be read says why.

    Args:
        path: A TIFF or an animation.
        value_range: As in `read_image`.
        stride: Of an animation, take every Nth frame. Pages of a TIFF are all wanted.

    Raises:
        DataError: The file cannot be opened.
    """
    data = read_regular(path)
    header = header_of(path, data)
    if header.tiff is not None:
        yield from _pages_of_tiff(path, bytearray(data), value_range)
    else:
        yield from _frames(path, data, stride)


def _pages_of_tiff(path: Path, data: bytearray, value_range: Range | None) -> Iterator[Page]:
    for index, page in enumerate(read_tiff_pages(io.BytesIO(data))):
        remarks: list[str] = []
        as_first_page(data, page)
        try:
            header = header_of_tiff(page.header())
            refuse_too_large(header.width, header.height, header.bits)
            pixels = decode_image(path, data, header, value_range=value_range, remarks=remarks)
            yield Page(index, pixels, remarks=tuple(remarks))
        except DataError as error:
            reason = str(error).removeprefix(f"{path}: ")
            yield Page(index, DataError(f"{path}: page {index + 1}: {reason}"))


def _frames(path: Path, data: bytes, stride: int) -> Iterator[Page]:
    """Yield the frames of an animation; what follows a damaged one cannot be read."""
    seconds = 0.0
    with PillowImage.open(io.BytesIO(data), formats=FORMATS) as image:
        for index in range(getattr(image, "n_frames", 1)):
            try:
                image.seek(index)
                image.load()
                shown = index % stride == 0
                pixels = np.asarray(image.convert("RGB"), np.uint8).copy() if shown else None
            except Exception as error:  # Pillow's decoders raise what they like on hostile bytes
                reason = f"{path}: frame {index} and what follows cannot be read"
                yield Page(index, DataError(f"{reason} ({one_line(error)})"))
                return
            if pixels is not None:
                yield Page(index, pixels, seconds)
            seconds += float(image.info.get("duration", 0)) / 1000
