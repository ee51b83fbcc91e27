"""Which detections and true boxes can match at all: a sparse matrix of their overlaps.

Shapes: D detections, G true boxes, P pairs of a detection and a true box. A group is one image and
one class; only boxes of one group are compared. Boxes are (x, y, w, h) px, as in COCO files,
because pycocotools computes overlaps from these and we promise its figures to 1e-12.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rfla.metrics.arrays import BoolArray, FloatArray, IntArray

CHUNK = 200_000
"""Pairs examined at once: bounds the memory (about 100 bytes each) and stays in the CPU cache."""

ALMOST_ONE = 1 - 1e-10
"""The highest IoU threshold that is used, as in pycocotools: a box always matches itself."""


class GroupedBoxes(NamedTuple):
    """Detections or true boxes, sorted by group."""

    group: IntArray  # (M,)
    x: FloatArray  # (M,) left edge, px
    y: FloatArray  # (M,) top edge, px
    w: FloatArray  # (M,) px
    h: FloatArray  # (M,) px

    def rows(self, chosen: IntArray) -> "GroupedBoxes":
        """Return some of the boxes."""
        return GroupedBoxes(
            self.group[chosen], self.x[chosen], self.y[chosen], self.w[chosen], self.h[chosen]
        )


class Overlaps(NamedTuple):
    """Pairs that overlap enough, sorted by detection, the pair that it prefers first."""

    det: IntArray  # (P,) row of the detection
    gt: IntArray  # (P,) row of the true box
    iou: FloatArray  # (P,) IoU; intersection over the detection (IoD) where the box is a crowd
    iod: FloatArray | None  # (P,) IoD of every pair, where it was asked for

    def rows(self, chosen: IntArray) -> "Overlaps":
        """Return some of the pairs."""
        iod = None if self.iod is None else self.iod[chosen]
        return Overlaps(self.det[chosen], self.gt[chosen], self.iou[chosen], iod)


def grouped_boxes(group: IntArray, boxes: FloatArray, sides: FloatArray) -> GroupedBoxes:
    """Return boxes that are sorted by group, from xyxy (M, 4) and width and height (M, 2)."""
    return GroupedBoxes(group, *boxes[:, :2].T.copy(), *sides.T.copy())


def find_overlaps(
    dets: GroupedBoxes, gts: GroupedBoxes, crowd: BoolArray, lowest: float, with_iod: bool = False
) -> Iterator[Overlaps]:
    """Yield the pairs of one group whose overlap is at least `lowest`, in chunks of whole groups.

    Args:
        dets: (D,) detections.
        gts: (G,) true boxes.
        crowd: (G,) their overlap is intersection over the detection (IoD), as in pycocotools.
        lowest: smallest IoU threshold, above 0.
        with_iod: also yield the pairs whose IoD is at least `lowest`, and every pair's IoD.
    """
    if not len(dets.group) or not len(gts.group):
        return

    # IoU bounds how far apart two left edges can be; IoD does not, so it needs the whole group
    whole_group = crowd | with_iod
    windowed, unbounded = np.flatnonzero(~whole_group), np.flatnonzero(whole_group)
    start, count, by_left_edge = _windows(dets, gts.rows(windowed), lowest)
    windowed = windowed[by_left_edge]
    group_start, group_count = _members(gts.group[unbounded], dets.group)

    for first, last in _chunks(dets.group, count + group_count):
        chunk = slice(first, last)
        det_near, near = _expand(start[chunk], count[chunk])
        det_far, far = _expand(group_start[chunk], group_count[chunk])
        det = np.concatenate([det_near, det_far]) + first
        gt = np.concatenate([windowed[near], unbounded[far]])
        found = _measure(dets, gts, crowd, det, gt, with_iod)
        best = found.iou if found.iod is None else np.maximum(found.iou, found.iod)
        kept = np.flatnonzero(best >= min(lowest, ALMOST_ONE))
        if len(kept):
            kept = kept[_order_of_preference(found.det[kept], found.gt[kept], found.iou[kept])]
            yield found.rows(kept)


def _order_of_preference(det: IntArray, gt: IntArray, iou: FloatArray) -> IntArray:
    """Return (P,) the order by detection, then falling overlap, then falling row of the box."""
    order = np.argsort(det, kind="stable")
    det = det[order]
    # most detections have one pair: only the others need the slower sort
    equal = det[1:] == det[:-1]
    several = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
    rows = order[several]
    order[several] = rows[np.lexsort((-gt[rows], -iou[rows], det[several]))]
    return order


def _measure(
    dets: GroupedBoxes,
    gts: GroupedBoxes,
    crowd: BoolArray,
    det: IntArray,
    gt: IntArray,
    with_iod: bool,
) -> Overlaps:
    """Return the overlaps of the pairs (det, gt) that touch.

    The order of the floating-point operations is that of `bbIou` in the COCO API, so that results
    agree to the last bit.
    """
    # most pairs of a window lie apart in y: drop them before anything else is computed
    height = np.minimum((gts.h + gts.y)[gt], (dets.h + dets.y)[det])
    height -= np.maximum(gts.y[gt], dets.y[det])
    touching = np.flatnonzero(height > 0)
    det, gt, height = det[touching], gt[touching], height[touching]

    width = np.minimum((gts.w + gts.x)[gt], (dets.w + dets.x)[det])
    width -= np.maximum(gts.x[gt], dets.x[det])
    touching = np.flatnonzero(width > 0)
    det, gt = det[touching], gt[touching]
    intersection = width[touching] * height[touching]

    det_area = (dets.w * dets.h)[det]
    union = det_area + (gts.w * gts.h)[gt] - intersection
    iou = intersection / np.where(crowd[gt], det_area, union)
    return Overlaps(det, gt, iou, intersection / det_area if with_iod else None)


def _windows(
    dets: GroupedBoxes, gts: GroupedBoxes, lowest: float
) -> tuple[IntArray, IntArray, IntArray]:
    """Find for each detection the true boxes of its group whose left edge is near enough.

    IoU is at most the overlap in x over the larger width. So a box reaches IoU t with a detection
    of width w only if its left edge is at most w * (1 - t) / t to the left and w * (1 - t) to the
    right of the detection's.

    Returns:
        First box and number of boxes of each detection (D,), in boxes sorted by group and left
        edge; and that order (G,).
    """
    if not len(gts.group):
        nothing = np.zeros(len(dets.x), np.int64)
        return nothing, nothing, np.zeros(0, np.int64)

    # one sorted key holds group and left edge: groups lie `span` apart, wider than any window
    origin = gts.x.min()
    span = (gts.x.max() - origin + 1.0) * 2
    order = np.lexsort((gts.x, gts.group))
    keys = gts.group[order] * span + (gts.x[order] - origin)

    # rounding must never lose a pair
    slack = 16 * np.spacing(keys.max() + span) + 1e-6 * dets.w
    leftmost = dets.x - dets.w * (1 - lowest) / lowest - slack - origin
    rightmost = dets.x + dets.w * (1 - lowest) + slack - origin

    # a window must not reach into the keys of a neighbouring group
    leftmost = np.maximum(leftmost, -span / 4)
    rightmost = np.clip(rightmost, -span / 4, span * 3 / 4)
    base = dets.group * span
    start = np.searchsorted(keys, base + leftmost, side="left")
    stop = np.searchsorted(keys, base + rightmost, side="right")
    return start, np.maximum(stop - start, 0), order


def _members(groups: IntArray, wanted: IntArray) -> tuple[IntArray, IntArray]:
    """Return start and length of the run of each wanted group (D,) in sorted groups (G,)."""
    if not len(groups):
        nothing = np.zeros(len(wanted), np.int64)
        return nothing, nothing
    start = np.searchsorted(groups, wanted, side="left")
    return start, np.searchsorted(groups, wanted, side="right") - start


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
    first = start - (np.cumsum(count) - count)  # of each range, less the elements before it
    return owner, np.arange(len(owner)) + first[owner]
