"""Boxes round polygons and masks of COCO's `segmentation`, without drawing a pixel."""

from collections.abc import Sequence
from typing import Any

from rfla.data.formats.coco_file import finite_numbers

Box = tuple[float, float, float, float]


def box_of(segmentation: Any) -> Box | None:
    """Return the box x, y, w, h px round a `segmentation`, or None where it has no usable part.

    Args:
        segmentation: Polygons `[[x, y, x, y, ...], ...]`, or a run-length mask `{size, counts}`,
            plain or compressed.
    """
    if isinstance(segmentation, dict):
        return _box_of_mask(segmentation)
    if not isinstance(segmentation, list):
        return None
    nested = all(isinstance(part, list) for part in segmentation)
    polygons = [finite_numbers(part) for part in (segmentation if nested else [segmentation])]
    points = [polygon for polygon in polygons if polygon and len(polygon) % 2 == 0]
    if not points:
        return None
    xs = [x for polygon in points for x in polygon[0::2]]
    ys = [y for polygon in points for y in polygon[1::2]]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def _box_of_mask(mask: dict[Any, Any]) -> Box | None:
    size, counts = mask.get("size"), mask.get("counts")
    if isinstance(counts, str):
        counts = _uncompressed(counts)
    if not isinstance(size, list) or len(size) != 2 or not isinstance(counts, list):
        return None
    if not all(type(value) is int and 0 <= value < 2**53 for value in [*size, *counts]):
        return None
    return _box_of_runs(counts, size[0])


def _box_of_runs(counts: Sequence[int], height: int) -> Box | None:
    """Return the box round the pixels of every second run; runs go down columns, left to right."""
    if height < 1:
        return None
    columns: list[int] = []
    rows: list[int] = []
    start = 0
    for position, length in enumerate(counts):
        end = start + length
        if position % 2 == 1 and length:
            columns += [start // height, (end - 1) // height]
            one_column = start // height == (end - 1) // height
            rows += [start % height, (end - 1) % height] if one_column else [0, height - 1]
        start = end
    if not columns:
        return None
    x, y = min(columns), min(rows)
    return float(x), float(y), float(max(columns) + 1 - x), float(max(rows) + 1 - y)


def _uncompressed(text: str) -> list[int]:
    """Decode the compressed counts of pycocotools.

    Six bits a letter, as differences to the run before the last.

    Returns:
        The lengths of the runs; of a text that is none, numbers that no mask has.
    """
    counts: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            return [-1]
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:  # the sign
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts
