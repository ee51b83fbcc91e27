"""Open every image of a split and keep, in a few bytes, what the checks need to know of it.

Shapes: N images; a thumbnail is (16, 16) uint8 grey, a fingerprint (32,) uint8: 256 bits, each
"brighter than the next".
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from rfla.data.annotations import Annotations
from rfla.data.progress import tracked
from rfla.errors import DataError

_SIDE = 16  # px of a thumbnail
_BANDS = 16  # pairs that share one of 16 parts of the fingerprint are compared
_COMMON = 40  # a part that more images share says nothing (open sea, blank tiles)
_BLANK = 3  # grey levels of standard deviation; pictures with less are not compared
_DIFFERENT_BITS = 20  # of 256
_DIFFERENT_LEVEL = 2.5  # mean grey levels between thumbnails


@dataclass(frozen=True)
class ImageSummary:
    """What is kept of one image.

    Attributes:
        size: Height and width, px; None where it cannot be read, or is of another shape than its
            annotations state.
        fault: Why not.
        digest: Of the decoded pixels: equal for identical pictures in any file format.
        thumbnail: (16, 16) uint8.
        fingerprint: (32,) uint8.
        remarks: What a user should know of the file, as `rfla.data.images.read_image` says it.
    """

    size: tuple[int, int] | None
    fault: str = ""
    digest: bytes = b""
    thumbnail: NDArray[np.uint8] | None = None
    fingerprint: NDArray[np.uint8] | None = None
    remarks: tuple[str, ...] = ()


def summarize_images(
    index: Annotations, workers: int, progress: bool = False
) -> list[ImageSummary]:
    """Open all images of a split, `workers` at a time.

    Threads are enough: decoding does not hold Python's lock.
    """
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        summaries = pool.map(lambda row: _summarize(index, row), range(len(index)))
        return list(tracked(summaries, index.name, len(index), progress))


def _summarize(index: Annotations, row: int) -> ImageSummary:
    remarks: list[str] = []
    try:
        image = index.read_image(row, remarks=remarks)
    except DataError as error:
        return ImageSummary(None, str(error))
    height, width = image.shape[:2]
    digest = hashlib.sha1(image.tobytes(), usedforsecurity=False).digest()
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA)
    thumbnail = np.asarray(small[:, :-1], np.uint8)
    fingerprint = np.packbits(small[:, 1:] > small[:, :-1])
    return ImageSummary((height, width), "", digest, thumbnail, fingerprint, tuple(remarks))


def identical_pairs(
    first: list[ImageSummary], second: list[ImageSummary] | None = None
) -> list[tuple[int, int]]:
    """Return pairs of rows with the same pixels: within one list, or between two."""
    seen: dict[bytes, int] = {}
    pairs = []
    for row, image in enumerate(first):
        if image.digest:
            if second is None and image.digest in seen:
                pairs.append((seen[image.digest], row))
            seen.setdefault(image.digest, row)
    if second is not None:
        pairs = [(seen[two.digest], row) for row, two in enumerate(second) if two.digest in seen]
    return pairs


def similar_pairs(first: list[ImageSummary], second: list[ImageSummary]) -> list[tuple[int, int]]:
    """Return pairs of rows, one of each list, that look nearly the same and are not identical.

    Blank pictures do not count.
    """
    found = set()
    for left, right in _candidates(first, second):
        one, two = first[left], second[right]
        if one.digest == two.digest or one.thumbnail is None or two.thumbnail is None:
            continue
        bits = np.unpackbits(np.asarray(one.fingerprint) ^ np.asarray(two.fingerprint)).sum()
        level = np.abs(one.thumbnail.astype(np.float32) - two.thumbnail).mean()
        if bits <= _DIFFERENT_BITS and level <= _DIFFERENT_LEVEL:
            found.add((left, right))
    return sorted(found)


def _candidates(first: list[ImageSummary], second: list[ImageSummary]) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows that share a part of the fingerprint."""
    groups: dict[tuple[int, bytes], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, images in enumerate((first, second)):
        for row, image in enumerate(images):
            if image.thumbnail is None or image.fingerprint is None:
                continue
            if image.thumbnail.std() < _BLANK:
                continue
            for band, part in enumerate(np.split(image.fingerprint, _BANDS)):
                groups[band, part.tobytes()][side].append(row)
    for left, right in groups.values():
        if len(left) * len(right) <= _COMMON**2:
            yield from ((one, two) for one in left for two in right)


def scene_of_tile(path: str) -> str | None:
    """Return the name of the scene that a tile was cut from, or None.

    It is read from names like `P__x_y`, `P__1.0__x___y` and `P_x_y`.
    """
    stem = Path(path).stem
    head, separator, tail = stem.partition("__")
    if separator and head:
        numbers = [part for part in tail.replace("_", " ").split() if part]
        return head if len(numbers) >= 2 and all(_is_number(part) for part in numbers) else None
    parts = stem.rsplit("_", 2)
    return parts[0] if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit() else None


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdigit()
