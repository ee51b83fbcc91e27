"""The tags of a TIFF that say how its pixels are to be read, without decoding any.

TIFF 6.0 and BigTIFF, either byte order. A page is a main image: reduced copies (the overviews of a
cloud-optimised GeoTIFF) and masks are none.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

_MAGICS = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
_MAX_PAGES = 10_000  # a chain of pages that is longer is a circle, or an attack
_MAX_BYTES = 1 << 20  # of the value of one tag; longer ones say nothing that is needed here
# Letters of `struct` by TIFF type: byte, ASCII, short, long, ..., and the 8-byte ones of BigTIFF.
_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d"} | {
    16: "Q",
    17: "q",
}

SUBFILE, WIDTH, HEIGHT, BITS, PHOTOMETRIC = 254, 256, 257, 258, 262
ORIENTATION, SAMPLES, LOWEST, HIGHEST = 274, 277, 280, 281
TILE_WIDTH, TILE_HEIGHT, SAMPLE_FORMAT, LOWEST_OF_TYPE, HIGHEST_OF_TYPE = 322, 323, 339, 340, 341
GEO_KEYS, GDAL_METADATA, GDAL_NODATA = 34735, 42112, 42113
_WANTED = frozenset({SUBFILE, WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION, SAMPLES}) | {
    *(LOWEST, HIGHEST, TILE_WIDTH, TILE_HEIGHT, SAMPLE_FORMAT, LOWEST_OF_TYPE, HIGHEST_OF_TYPE),
    *(GEO_KEYS, GDAL_METADATA, GDAL_NODATA),
}
_REDUCED_OR_MASK = 0b101
_DAMAGED = (struct.error, OverflowError, OSError, ValueError, UnicodeDecodeError)
_STATISTIC = re.compile(r'name="STATISTICS_(MINIMUM|MAXIMUM)"[^>]*>([^<]{1,40})<')


@dataclass(frozen=True)
class TiffHeader:
    """What the first page of a TIFF states.

    Attributes:
        width: In px.
        height: In px.
        tags: First value of each known tag; texts as `str`.
        pages: Number of main images in the file.
    """

    width: int
    height: int
    tags: dict[int, Any]
    pages: int

    @property
    def stated_range(self) -> tuple[float, float] | None:
        """Lowest and highest sample value that the file states by its own tags, or None."""
        for low, high in ((LOWEST_OF_TYPE, HIGHEST_OF_TYPE), (LOWEST, HIGHEST)):
            if high in self.tags and self.tags[high] > self.tags.get(low, 0):
                return float(self.tags.get(low, 0)), float(self.tags[high])
        return None

    @property
    def statistics(self) -> tuple[float, float] | None:
        """Minimum and maximum of the pixels that GDAL noted in the file, or None."""
        found = dict(_STATISTIC.findall(str(self.tags.get(GDAL_METADATA, ""))))
        low, high = _number(found.get("MINIMUM")), _number(found.get("MAXIMUM"))
        return (low, high) if low is not None and high is not None and low < high else None

    @property
    def nodata(self) -> float | None:
        """Value of pixels that hold no data, or None."""
        return _number(self.tags.get(GDAL_NODATA))


@dataclass(frozen=True)
class TiffPage:
    """One directory of a TIFF.

    Attributes:
        offset: Where it begins in the file.
        tags: As in `TiffHeader`.
    """

    offset: int
    tags: dict[int, Any]

    @property
    def is_main(self) -> bool:
        """Whether it is an image of its own, and no reduced copy or mask."""
        return not self.tags.get(SUBFILE, 0) & _REDUCED_OR_MASK

    def header(self, pages: int = 1) -> TiffHeader:
        """Return what it states, as the first page of a file of `pages` pages."""
        return TiffHeader(
            int(self.tags.get(WIDTH, 0)), int(self.tags.get(HEIGHT, 0)), self.tags, pages
        )


def _number(text: Any) -> float | None:
    try:
        return float(str(text).strip(" \0")) if text is not None else None
    except ValueError:
        return None


def is_tiff(start: bytes) -> bool:
    """Tell whether a file begins as a TIFF does, from its first 4 bytes."""
    return start[:4] in _MAGICS


def read_tiff_header(file: BinaryIO) -> TiffHeader | None:
    """Read the tags of a TIFF; None where they are damaged."""
    try:
        return _read(file)
    except _DAMAGED:
        return None


def read_tiff_pages(file: BinaryIO) -> list[TiffPage]:
    """List the main images of a TIFF; none where its tags are damaged."""
    try:
        return [page for page in _walk(file) if page.is_main]
    except _DAMAGED:
        return []


def as_first_page(data: bytearray, page: TiffPage) -> None:
    """Let a TIFF in memory begin with one of its pages, in place: decoders read the first."""
    order, big = _layout(bytes(data[:4]))
    struct.pack_into(order + ("Q" if big else "I"), data, 8 if big else 4, page.offset)


def _read(file: BinaryIO) -> TiffHeader | None:
    pages = list(_walk(file))
    if not pages or WIDTH not in pages[0].tags or HEIGHT not in pages[0].tags:
        return None
    return pages[0].header(max(sum(page.is_main for page in pages), 1))


def _layout(start: bytes) -> tuple[str, bool]:
    """Return the byte order of a TIFF as `struct` writes it, and whether it is a BigTIFF."""
    return _MAGICS[start], start[2:3] == b"+" or start[3:4] == b"+"


def _walk(file: BinaryIO) -> Iterator[TiffPage]:
    """Yield all directories of a TIFF, in their order."""
    file.seek(0)
    order, big = _layout(file.read(4))
    file.seek(8 if big else 4)
    at = _unpack(file, order + ("Q" if big else "I"))
    seen = set[int]()
    while at and at not in seen and len(seen) < _MAX_PAGES:
        seen.add(at)
        tags, following = _directory(file, at, order, big)
        yield TiffPage(at, tags)
        at = following


def _directory(file: BinaryIO, at: int, order: str, big: bool) -> tuple[dict[int, Any], int]:
    """Read the wanted tags of one page, and where the next page begins (0: nowhere)."""
    file.seek(at)
    count = _unpack(file, order + ("Q" if big else "H"))
    size, inline = (20, 8) if big else (12, 4)
    entries = file.read(min(count, 4096) * size)
    following = _unpack(file, order + ("Q" if big else "I"))
    tags: dict[int, Any] = {}
    for offset in range(0, len(entries) - size + 1, size):
        tag, kind = struct.unpack_from(order + "HH", entries, offset)
        if tag in _WANTED and kind in _TYPES:
            entry = entries[offset + 4 : offset + size]
            tags[tag] = _value(file, entry, kind, order, inline)
    return {tag: value for tag, value in tags.items() if value is not None}, following


def _value(file: BinaryIO, entry: bytes, kind: int, order: str, inline: int) -> Any:
    """Return the first value of a tag, all of a text, or None for one that is not there."""
    pointer = "Q" if inline == 8 else "I"
    (count,) = struct.unpack_from(order + pointer, entry)
    letter = _TYPES[kind]
    size = count * struct.calcsize(order + letter)
    if count == 0 or size > _MAX_BYTES:
        return None
    data = entry[inline : inline + size]
    if size > inline:
        (offset,) = struct.unpack_from(order + pointer, entry, inline)
        file.seek(offset)
        data = file.read(size)
    if letter == "s":
        return data.decode("utf-8", "replace")
    return struct.unpack_from(order + letter, data)[0]


def _unpack(file: BinaryIO, form: str) -> int:
    value: int = struct.unpack(form, file.read(struct.calcsize(form)))[0]
    return value
