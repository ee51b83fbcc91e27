"""Which detections and true boxes can match at all: a sparse matrix of their overlaps.

Shapes: D detections, G true boxes, P pairs of a detection and a true box. A group is one image and
one class; only boxes of one group are compared. Boxes are (x, y, w, h) px, as in COCO files,
because pycocotools computes overlaps from these and we promise its figures to 1e-12.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rfla.metrics.arrays import BoolArray, FloatArray, IntArray, stable_order

DETECTIONS = 1 << 16
"""Detections looked up at once, and ..."""

PAIRS = 200_000
"""... pairs measured at once: bounds the memory (100 bytes each) and stays in the CPU cache."""

ALMOST_ONE = 1 - 1e-10
"""The highest IoU threshold that is used, as in pycocotools: a box always matches itself."""


class GroupedBoxes(NamedTuple):
    """Detections or true boxes, sorted by group."""

    group: IntArray  # (M,)
    x: FloatArray  # (M,) left edge, px
    y: FloatArray  # (M,) top edge, px
    w: FloatArray  # (M,) px
    h: FloatArray  # (M,) px

    def rows(self, chosen: IntArray | slice) -> "GroupedBoxes":
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


class _Axis(NamedTuple):
    """Maps an edge coordinate to its grid cell along one axis. S groups."""

    side: int  # number of cells
    low: FloatArray  # (S,) the first edge, px
    scale: FloatArray  # (S,) cells per px
    farthest: float  # no edge has a larger absolute value, px

    def cell(self, edge: FloatArray, place: IntArray) -> IntArray:
        """Return (M,) the cell of edges (M,) of the groups `place` (M,)."""
        return self._whole((edge - self.low[place]) * self.scale[place])

    def window(
        self, edge: FloatArray, length: FloatArray, place: IntArray, lowest: float
    ) -> tuple[IntArray, IntArray]:
        """Return (D,) the first and the last cell in which a box can reach an IoU of `lowest`.

        Args:
            edge: (D,) left or top edge of the detections, px.
            length: (D,) their width or height, px.
            place: (D,) their group.
            lowest: smallest IoU threshold.
        """
        scale = self.scale[place]
        cell, length = (edge - self.low[place]) * scale, length * scale
        # rounding must never lose a pair
        farthest = max(self.farthest, float(np.abs(edge).max(initial=0.0)))
        slack = 16 * np.spacing(farthest) * scale
        first = cell - length * ((1 - lowest) / lowest + 1e-6) - slack
        last = cell + length * (1 - lowest + 1e-6) + slack
        return self._whole(first), self._whole(last)

    def _whole(self, cell: FloatArray) -> IntArray:
        """Return the number of the cell, that at the border for what lies outside."""
        return np.minimum(np.maximum(cell, 0.0), self.side - 1.0).astype(np.int64)


class _Grid(NamedTuple):
    """True boxes in the order of group and cell; each group has `side` lines of `side` cells."""

    group: IntArray  # (S,) those that have boxes, ascending
    side: int
    columns: _Axis
    lines: _Axis
    start: IntArray  # (S * side * side + 1,) first box of each cell
    order: IntArray  # (G,) row of each box


class _Runs(NamedTuple):
    """Runs of boxes of the grid that a detection must be compared with, sorted by detection."""

    det: IntArray  # (Q,) row of the detection
    begin: IntArray  # (Q,) first box
    number: IntArray  # (Q,) of boxes


def grouped_boxes(
    group: IntArray, boxes: FloatArray, sides: FloatArray, rows: IntArray
) -> GroupedBoxes:
    """Return rows (M,) of xyxy boxes (N, 4) and sides (N, 2) that are sorted by group (M,)."""
    taken, lengths = boxes.take(rows, axis=0), sides.take(rows, axis=0)
    return GroupedBoxes(group, *taken[:, :2].T.copy(), *lengths.T.copy())


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
    # IoU bounds how far apart two corners can be; IoD does not, so it needs the whole group
    whole_group = crowd | with_iod
    bounded, unbounded = np.flatnonzero(~whole_group), np.flatnonzero(whole_group)
    grid = _grid(gts.rows(bounded))
    bounded = bounded[grid.order]
    for begin, end in _chunks(dets.group, np.ones(len(dets.group), np.int64), DETECTIONS):
        part = dets.rows(slice(begin, end))
        runs = _near_boxes(part, grid, lowest)
        group_start, group_count = _members(gts.group[unbounded], part.group)

        near_count = np.bincount(runs.det, runs.number, len(part.group)).astype(np.int64)
        for first, last in _chunks(part.group, near_count + group_count, PAIRS):
            chunk = slice(*np.searchsorted(runs.det, [first, last]))
            run, near = _expand(runs.begin[chunk], runs.number[chunk])
            det_far, far = _expand(group_start[first:last], group_count[first:last])
            det = np.concatenate([runs.det[chunk][run], det_far + first])
            gt = np.concatenate([bounded[near], unbounded[far]])
            found = _measure(part, gts, crowd, det, gt, with_iod)
            best = found.iou if found.iod is None else np.maximum(found.iou, found.iod)
            kept = np.flatnonzero(best >= min(lowest, ALMOST_ONE))
            if len(kept):
                kept = kept[_order_of_preference(found.det[kept], found.gt[kept], found.iou[kept])]
                kept_pairs = found.rows(kept)
                yield kept_pairs._replace(det=kept_pairs.det + begin)


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
    # many pairs of neighbouring cells lie apart in y: drop them before anything else is computed
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


def _grid(gts: GroupedBoxes) -> _Grid:
    """Put the top left corners of the boxes of each group into cells.

    Large groups have two cells for each box; all have together at most eight.
    """
    group_start = np.flatnonzero(np.diff(gts.group, prepend=-1))
    group_size = np.diff(group_start, append=len(gts.group))
    boxes, groups = len(gts.group), len(group_size)
    mean = int((group_size**2).sum()) // max(boxes, 1)  # size of the group of a box, in the mean
    side = max(1, min(math.isqrt(2 * mean), math.isqrt(8 * boxes // max(groups, 1)), 64))

    columns, lines = _axis(gts.x, group_start, side), _axis(gts.y, group_start, side)
    place = np.repeat(np.arange(groups), group_size)
    cell = (place * side + lines.cell(gts.y, place)) * side + columns.cell(gts.x, place)
    count = np.bincount(cell, minlength=groups * side**2)
    return _Grid(
        gts.group[group_start],
        side,
        columns,
        lines,
        np.append(0, np.cumsum(count)),
        stable_order(cell),
    )


def _axis(edge: FloatArray, group_start: IntArray, side: int) -> _Axis:
    """Cut the way from the first to the last edge of each group into `side` cells."""
    if not len(edge):
        return _Axis(side, edge, edge, 0.0)
    low = np.minimum.reduceat(edge, group_start)
    extent = np.maximum.reduceat(edge, group_start) - low
    scale = np.divide(side, extent, out=np.zeros_like(low), where=extent > 1e-6)
    return _Axis(side, low, scale, float(np.abs(edge).max()))


def _near_boxes(dets: GroupedBoxes, grid: _Grid, lowest: float) -> _Runs:
    """Find for each detection the cells with the boxes whose top left corner is near enough.

    IoU is at most the overlap in x over the larger width. So a box reaches IoU t with a detection
    of width w only if its left edge is at most w * (1 - t) / t to the left and w * (1 - t) to the
    right of the detection's; and so in y.
    """
    # the place of each group among those that have boxes
    start = np.flatnonzero(np.diff(dets.group, prepend=-1))
    size, wanted = np.diff(start, append=len(dets.group)), dets.group[start]
    place = np.searchsorted(grid.group, wanted).clip(max=len(grid.group) - 1)
    there = np.zeros(len(wanted), np.bool_)
    if len(grid.group):
        there = grid.group[place] == wanted
    rows = np.flatnonzero(np.repeat(there, size))
    place = np.repeat(place, size)[rows]

    dets = dets.rows(rows)
    first_column, last_column = grid.columns.window(dets.x, dets.w, place, lowest)
    first_line, last_line = grid.lines.window(dets.y, dets.h, place, lowest)
    det, line = _expand(first_line, last_line - first_line + 1)
    first_of_line = (place[det] * grid.side + line) * grid.side
    begin = grid.start[first_of_line + first_column[det]]
    end = grid.start[first_of_line + last_column[det] + 1]
    return _Runs(rows[det], begin, end - begin)


def _members(groups: IntArray, wanted: IntArray) -> tuple[IntArray, IntArray]:
    """Return start and length of the run of each wanted group (D,) in sorted groups (G,)."""
    if not len(groups):
        nothing = np.zeros(len(wanted), np.int64)
        return nothing, nothing
    start = np.searchsorted(groups, wanted, side="left")
    return start, np.searchsorted(groups, wanted, side="right") - start


def _chunks(group: IntArray, count: IntArray, size: int) -> Iterator[tuple[int, int]]:
    """Yield row ranges with a sum of about `size` that end where a group ends."""
    ends = np.append(np.flatnonzero(np.diff(group)) + 1, len(group))  # first row after each group
    total = np.cumsum(count)[ends - 1]
    first, done = 0, 0
    while done < total[-1]:
        cut = min(int(np.searchsorted(total, done + size)), len(ends) - 1)
        yield first, int(ends[cut])
        first, done = int(ends[cut]), int(total[cut])


def _expand(start: IntArray, count: IntArray) -> tuple[IntArray, IntArray]:
    """Turn ranges into (owner of each element, element)."""
    owner = np.repeat(np.arange(len(count)), count)
    first = start - (np.cumsum(count) - count)  # of each range, less the elements before it
    return owner, np.arange(len(owner)) + first[owner]
