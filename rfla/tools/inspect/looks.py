"""Open every image of a split and remember what a check needs: size, faults, and how it looks, in a few bytes.

Shapes: N images; a thumbnail is (16, 16) uint8 grey, a fingerprint (32,) uint8: 256 bits, each
"brighter than the
    next".
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
from rfla.data.images import read_annotated
from rfla.data.progress import tracked
from rfla.errors import DataError

_SIDE = 16
_BANDS = 16  # pairs that share one of 16 parts of the fingerprint are compared
_MOST_ALIKE = 40  # a part that more images share says nothing (open sea, blank tiles)
_DIFFERENT_BITS = 20  # of 256
_DIFFERENT_LEVEL = 2.5  # mean grey levels between thumbnails


@dataclass(frozen=True)
class Look:
    """What one image looks like.

    Attributes:
        size: Height and width, px; None where it cannot be read, or is of another shape than its
            annotations state.
        fault: Why not.
        digest: Of the decoded pixels: equal for identical pictures in any file format.
        thumbnail: (16, 16) uint8.
        fingerprint: (32,) uint8.
    """

    size: tuple[int, int] | None
    fault: str = ""
    digest: bytes = b""
    thumbnail: NDArray[np.uint8] | None = None
    fingerprint: NDArray[np.uint8] | None = None


def look_at(index: Annotations, workers: int, progress: bool = False) -> list[Look]:
    """Open all images of an index, `workers` at a time (decoding leaves Python's lock alone, so threads do)."""
    jobs = [
        (str(path), (int(h), int(w)))
        for path, (h, w) in zip(index.paths, index.image_hw, strict=True)
    ]
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        return list(tracked(pool.map(_look, jobs), index.name, len(jobs), progress))


def _look(job: tuple[str, tuple[int, int]]) -> Look:
    path, stated = job
    try:
        image = read_annotated(path, stated)
    except DataError as error:
        return Look(None, str(error))
    height, width = image.shape[:2]
    digest = hashlib.sha1(image.tobytes(), usedforsecurity=False).digest()
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    return Look((height, width), "", digest, np.asarray(small[:, :-1], np.uint8), bits)


def identical(first: list[Look], second: list[Look] | None = None) -> list[tuple[int, int]]:
    """Pairs of rows with the same pixels: within one list, or between two."""
    seen: dict[bytes, int] = {}
    pairs = []
    for row, look in enumerate(first):
        if look.digest:
            if second is None and look.digest in seen:
                pairs.append((seen[look.digest], row))
            seen.setdefault(look.digest, row)
    if second is not None:
        pairs = [(seen[look.digest], row) for row, look in enumerate(second) if look.digest in seen]
    return pairs


def alike(first: list[Look], second: list[Look]) -> list[tuple[int, int]]:
    """Pairs of rows, one of each list, that look nearly the same and are not identical.

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


def _candidates(first: list[Look], second: list[Look]) -> Iterator[tuple[int, int]]:
    groups: dict[tuple[int, bytes], tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, looks in enumerate((first, second)):
        for row, look in enumerate(looks):
            if look.thumbnail is None or look.fingerprint is None or look.thumbnail.std() < 3:
                continue
            for band, part in enumerate(np.split(look.fingerprint, _BANDS)):
                groups[band, part.tobytes()][side].append(row)
    for left, right in groups.values():
        if len(left) * len(right) <= _MOST_ALIKE**2:
            yield from ((one, two) for one in left for two in right)


def parent_of(path: str) -> str | None:
    """Name of the scene that a tile was cut from, read from names like `P__x_y`, `P__1.0__x___y` and `P_x_y`."""
    stem = Path(path).stem
    head, separator, tail = stem.partition("__")
    if separator and head:
        numbers = [part for part in tail.replace("_", " ").split() if part]
        return head if len(numbers) >= 2 and all(_is_number(part) for part in numbers) else None
    parts = stem.rsplit("_", 2)
    return parts[0] if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit() else None


def _is_number(text: str) -> bool:
    return text.lstrip("-").replace(".", "", 1).isdigit()
