"""Scores and boxes of COCO detections; the first entry that cannot be used is named."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rfla.errors import MetricError, shorten
from rfla.metrics.arrays import FloatArray

FARTHEST = 1e9
"""px beyond which no coordinate is believed."""

Record = Mapping[str, Any]


def field(entry: Any, key: str, where: str, number: int) -> Any:
    """Return the value of a key that a detection must have."""
    if not isinstance(entry, Mapping) or entry.get(key) is None:
        raise MetricError(f"{where}: detection {number} has no '{key}'")
    return entry[key]


def score_array(entries: Sequence[Record], where: str) -> FloatArray:
    """Return the (M,) scores.

    Args:
        entries: M dicts.
        where: the file, for messages.

    Raises:
        MetricError: an entry has no score, or one that is no finite number.
    """
    try:
        # without a type: numpy must not turn a text into a number
        values = np.array([entry["score"] for entry in entries])
    except (KeyError, TypeError, ValueError):
        values = np.array(None)
    if len(entries) and (values.dtype.kind not in "fiu" or values.ndim != 1):
        values = np.array([_number(entry, "score", where, n) for n, entry in enumerate(entries)])

    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        value = "NaN" if np.isnan(values[bad[0]]) else "infinite"
        image = entries[bad[0]].get("image_id")
        more = f"; {len(bad)} such entries" if len(bad) > 1 else ""
        raise MetricError(
            f"{where}: the score of detection {bad[0]} (image {shorten(image)}) is {value}{more}"
        )
    return values.astype(np.float64, copy=False)


def box_array(entries: Sequence[Record], where: str) -> FloatArray:
    """Return (M, 4) COCO boxes x, y, width, height.

    Raises:
        MetricError: a box is not four finite numbers, has a negative side or lies too far out.
    """
    try:
        given = np.array([entry["bbox"] for entry in entries])
    except (KeyError, TypeError, ValueError):
        given = np.array(None)
    if not len(entries):
        given = np.zeros((0, 4))
    elif given.dtype.kind not in "fiu" or given.shape != (len(entries), 4):
        given = np.array([_box(entry, where, n) for n, entry in enumerate(entries)])
    boxes: FloatArray = given.astype(np.float64, copy=False)

    near = (np.abs(boxes) <= FARTHEST).all(axis=1)
    bad = np.flatnonzero(~near | (boxes[:, 2:] < 0).any(axis=1))
    if len(bad):
        number, box = int(bad[0]), boxes[bad[0]]
        if (box[2:] < 0).any():
            wrong = "of a negative side; boxes are x, y, width, height"
        else:
            wrong = "farther than 1e9 px out" if np.isfinite(box).all() else "not finite"
        given_box = shorten(entries[number]["bbox"])
        raise MetricError(f"{where}: detection {number}: bbox {given_box} is {wrong}")
    return boxes


def _number(entry: Record, key: str, where: str, number: int) -> float:
    value = field(entry, key, where, number)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise MetricError(f"{where}: detection {number}: '{key}' is {shorten(value)}, not a number")
    try:
        return float(value)
    except OverflowError:
        raise MetricError(
            f"{where}: detection {number}: '{key}' is {shorten(value)}, which is too large"
        ) from None


def _box(entry: Record, where: str, number: int) -> list[float]:
    box = field(entry, "bbox", where, number)
    if not isinstance(box, list | tuple | np.ndarray) or len(box) != 4:
        raise MetricError(
            f"{where}: detection {number}: bbox {shorten(box)} is not [x, y, width, height]"
        )
    return [_number({"bbox": side}, "bbox", where, number) for side in box]
