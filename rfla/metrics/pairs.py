"""Which detections and true boxes can match at all: the sparse pairs whose overlap reaches the lowest threshold.

Shapes: D detections and G boxes of one evaluation, P pairs. A group is one image and one class;
only boxes of one group are compared. Boxes are given as corner and sides (x, y, w, h) in px,
because the official evaluators compute overlaps from these and 1e-9 is promised.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rfla.metrics.arrays import BoolArray, FloatArray, IntArray

CHUNK = 200_000
"""Pairs looked at in one go: bounds the memory (about 100 bytes a pair) and keeps the work inside the cache."""


class Pairs(NamedTuple):
    """Pairs of one chunk, sorted by detection."""

    det: IntArray  # (P,) row of the detection
    gt: IntArray  # (P,) row of the true box
    overlap: FloatArray  # (P,) IoU, or intersection over the detection where the box swallows
    inside: FloatArray | None  # (P,) intersection over the detection, where it was asked for


class Side(NamedTuple):
    """Boxes of one kind, sorted by group."""

    group: IntArray  # (M,)
    corner: FloatArray  # (M, 2) x1, y1
    sides: FloatArray  # (M, 2) w, h

    def rows(self, chosen: IntArray | BoolArray | slice) -> "Side":
        """Return some of the boxes."""
        return Side(self.group[chosen], self.corner[chosen], self.sides[chosen])


def overlap(dets: Side, gts: Side, swallows: BoolArray) -> FloatArray:
    """Return (P,) the overlap of paired boxes: IoU, or intersection over the detection where `swallows`.

    The order of operations is that of `bbIou` in the COCO API, so that results agree to the last
    bit.
    """
    low = np.maximum(dets.corner, gts.corner)
    inner = np.minimum(dets.sides + dets.corner, gts.sides + gts.corner) - low
    inner[(inner <= 0).any(axis=1)] = 0.0
    intersection = inner[:, 0] * inner[:, 1]
    det_area = dets.sides[:, 0] * dets.sides[:, 1]
    union = np.where(
        swallows, det_area, det_area + gts.sides[:, 0] * gts.sides[:, 1] - intersection
    )
    value: FloatArray = np.divide(
        intersection, union, out=np.zeros_like(union), where=intersection > 0
    )
    return value


def find_pairs(
    dets: Side, gts: Side, swallows: BoolArray, lowest: float, inside: bool = False
) -> Iterator[Pairs]:
    """Yield all pairs of one group whose overlap is at least `lowest`, chunk by chunk, no group split over chunks.

    A box can reach IoU t with a detection of width w only if its left edge lies within w * (1 - t)
    / t to the left and w * (1 - t) to the right of the detection's: IoU is at most the overlap in x
    over the larger width. A box that swallows (a crowd) has no such bound and is paired with every
    detection of its group.

    Args:
        dets: (D,) sorted by group.
        gts: (G,) sorted by group.
        swallows: (G,) overlap is intersection over the detection.
        lowest: smallest IoU threshold, above 0.
        inside: also yield the pairs whose intersection over the detection is at least `lowest`.
    """
    if not len(dets.group) or not len(gts.group):
        return
    everywhere = swallows | inside
    plain, crowd = np.flatnonzero(~everywhere), np.flatnonzero(everywhere)
    start, count, rows = _windows(dets, gts.rows(plain), lowest)
    crowd_start = np.searchsorted(gts.group[crowd], dets.group, side="left")
    crowd_count = np.searchsorted(gts.group[crowd], dets.group, side="right") - crowd_start
    for first, last in _chunks(dets.group, count + crowd_count):
        chunk = slice(first, last)
        near_det, near = _expand(start[chunk], count[chunk])
        far_det, far = _expand(crowd_start[chunk], crowd_count[chunk])
        det = np.concatenate([near_det, far_det]) + first
        gt = np.concatenate([plain[rows[near]], crowd[far]])
        value = overlap(dets.rows(det), gts.rows(gt), swallows[gt])
        share = (
            overlap(dets.rows(det), gts.rows(gt), np.ones_like(gt, np.bool_)) if inside else None
        )
        reach = np.flatnonzero(
            (value if share is None else np.maximum(value, share)) >= min(lowest, 1 - 1e-10)
        )
        if len(reach):
            reach = reach[np.lexsort((gt[reach], det[reach]))]
            yield Pairs(
                det[reach], gt[reach], value[reach], None if share is None else share[reach]
            )


def _windows(dets: Side, gts: Side, lowest: float) -> tuple[IntArray, IntArray, IntArray]:
    """Return for each detection where its possible boxes start and how many they are, in boxes sorted by left edge."""
    x1, width = dets.corner[:, 0], dets.sides[:, 0]
    if not len(gts.group):
        return np.zeros(len(x1), np.int64), np.zeros(len(x1), np.int64), np.zeros(0, np.int64)
    left = gts.corner[:, 0]
    origin = left.min()
    span = (left.max() - origin + 1.0) * 2
    rows = np.lexsort((left, gts.group))
    keys = gts.group[rows] * span + (left[rows] - origin)
    slack = 16 * np.spacing(keys.max() + span) + 1e-6 * width  # rounding must never lose a pair
    reach_left = np.maximum(x1 - width * (1 - lowest) / lowest - slack - origin, -span / 4)
    reach_right = np.minimum(x1 + width * (1 - lowest) + slack - origin, span * 3 / 4)
    base = dets.group * span
    start = np.searchsorted(keys, base + reach_left, side="left")
    stop = np.searchsorted(keys, base + np.maximum(reach_right, -span / 4), side="right")
    return start, np.maximum(stop - start, 0), rows


def _chunks(group: IntArray, count: IntArray) -> Iterator[tuple[int, int]]:
    """Yield row ranges of about CHUNK pairs that end where a group ends."""
    ends = np.append(np.flatnonzero(np.diff(group)) + 1, len(group))  # first row after each group
    total = np.cumsum(count)[ends - 1]
    first, done = 0, 0
    while done < total[-1]:
        cut = min(int(np.searchsorted(total, done + CHUNK)), len(ends) - 1)
        yield first, int(ends[cut])
        first, done = int(ends[cut]), int(total[cut])


def _expand(start: IntArray, count: IntArray) -> tuple[IntArray, IntArray]:
    """Turn ranges into (owner of each element, element)."""
    owner = np.repeat(np.arange(len(count)), count)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    return owner, start[owner] + offset
