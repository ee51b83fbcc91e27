"""Greedy matching of detections to true boxes, for all IoU thresholds and size ranges at once.

The rule is that of pycocotools (`COCOeval.evaluateImg`): within one image and class, detections
take boxes in order of their score; each takes the free box with the highest overlap that reaches
the threshold, the later one on a tie, and an ignored box only if no other is left. It is run here
on the sparse pairs of `pairs.py`: detections that do not compete for a box are done together, so
the number of steps is the length of the longest queue for one box.

Shapes: P pairs, C detections with at least one pair (candidates), G true boxes, T thresholds, A
size ranges.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfla.metrics.arrays import BoolArray, FloatArray, IntArray
from rfla.metrics.pairs import Pairs

UNMATCHED, MATCHED, MATCHED_IGNORED = 0, 1, 2
_REAL = (
    1 << 14
)  # added to the place of a pair when its box counts, so that such a box beats every ignored one
_PEELS = 32


class Matched(NamedTuple):
    """What became of the candidates of one chunk."""

    det: IntArray  # (C,) row of the detection
    state: NDArray[np.uint8]  # (C, T, A) UNMATCHED, MATCHED or MATCHED_IGNORED
    overlap: FloatArray  # (C, A) IoU with the box taken at threshold `at`, 0 where none
    gt: IntArray  # (C,) row of the box taken at threshold `at` over all sizes, -1 where none


def match(
    pairs: Pairs,
    thresholds: FloatArray,
    ignored: BoolArray,
    many: BoolArray,
    group: IntArray,
    at: int,
) -> Matched:
    """Match one chunk of pairs.

    Args:
        pairs: sorted by detection; rows of one group in order of score.
        thresholds: (T,) IoU.
        ignored: (G, A) boxes that count nothing in a size range.
        many: (G,) boxes that any number of detections may take (crowds).
        group: (D,) image and class of every detection row.
        at: index of the threshold whose pairing is told.
    """
    det, start, count = np.unique(pairs.det, return_index=True, return_counts=True)
    gt_rows, gt = np.unique(pairs.gt, return_inverse=True)
    level = _levels(pairs.det, gt, many[gt_rows], start, count, group[det])
    pair_order = np.lexsort((gt, pairs.overlap, np.repeat(np.arange(len(det)), count)))
    taken = np.zeros((len(gt_rows), len(thresholds), ignored.shape[1]), np.bool_)
    work = _Work(
        gt[pair_order],
        pairs.overlap[pair_order],
        np.minimum(thresholds, 1 - 1e-10),
        ignored[gt_rows],
        taken,
    )
    state = np.zeros((len(det), *taken.shape[1:]), np.uint8)
    overlap = np.zeros((len(det), taken.shape[2]))
    chosen_gt = np.full(len(det), -1)
    for rows in _by_level(level, count):
        best = work.choose(start[rows], count[rows])  # (n, T, A)
        state[rows] = (best > 0).astype(np.uint8) + ((best > 0) & (best < _REAL))
        pair = start[rows, None, None] + best % _REAL - 1
        work.take(pair, best > 0, many[gt_rows])
        found = best[:, at, :] > 0
        at_pair = np.where(found, pair[:, at, :], start[rows, None])
        overlap[rows] = np.where(found, work.overlap[at_pair], 0.0)
        chosen_gt[rows] = np.where(found[:, 0], gt_rows[work.gt[at_pair[:, 0]]], -1)
    if pairs.inside is not None:
        _swallow(state, pairs, thresholds, ignored, start)
    return Matched(det, state, overlap, chosen_gt)


def _swallow(
    state: NDArray[np.uint8],
    pairs: Pairs,
    thresholds: FloatArray,
    ignored: BoolArray,
    start: IntArray,
) -> None:
    """Ignore the unmatched that lie far enough inside any ignored box (TinyPerson's IoD rule)."""
    assert pairs.inside is not None
    inside = np.where(ignored[pairs.gt], pairs.inside[:, None], 0.0)  # (P, A)
    deepest = np.maximum.reduceat(inside, start, axis=0)  # (C, A)
    swallowed = (state == UNMATCHED) & (deepest[:, None, :] >= thresholds[:, None])
    state[swallowed] = MATCHED_IGNORED


class _Work(NamedTuple):
    """The pairs in order of preference within each detection, and what is taken so far."""

    gt: IntArray  # (P,)
    overlap: FloatArray  # (P,)
    thresholds: FloatArray  # (T,)
    ignored: BoolArray  # (g, A)
    taken: BoolArray  # (g, T, A)

    def choose(self, start: IntArray, count: IntArray) -> NDArray[np.int16]:
        """Return (n, T, A) 1 + place of the pair each detection takes, plus _REAL where its box counts; 0 for none.

        Detections come with their pairs descending in number, so the j-th pairs belong to the first
        few.
        """
        best = np.zeros((len(start), *self.taken.shape[1:]), np.int16)
        for j in range(int(count[0])):
            rows = start[: np.searchsorted(-count, -j, side="left")] + j
            gt = self.gt[rows]
            reaches = self.overlap[rows, None] >= self.thresholds  # (n', T)
            value = np.int16(j + 1) + np.where(
                self.ignored[gt], np.int16(0), np.int16(_REAL)
            )  # (n', A)
            free = reaches[:, :, None] & ~self.taken[gt]
            np.maximum(best[: len(rows)], free * value[:, None, :], out=best[: len(rows)])
        return best

    def take(self, pair: IntArray, found: BoolArray, many: BoolArray) -> None:
        """Mark the boxes of the pairs found (n, T, A) as taken; those of crowds stay free."""
        _, t, a = np.nonzero(found)
        gt = self.gt[pair[found]]
        self.taken[gt, t, a] = ~many[gt]


def _levels(
    pair_det: IntArray,
    gt: IntArray,
    many: BoolArray,
    start: IntArray,
    count: IntArray,
    group: IntArray,
) -> IntArray:
    """Return (C,) the step at which each candidate may be matched: after all better ones that want one of its boxes.

    Round by round, the candidates that come first for all their boxes leave. Long queues (hundreds
    of detections of one object) are cut short: what is left after some rounds goes one by one
    within its group, which is also in order.
    """
    level = np.full(len(start), -1)
    place = np.repeat(np.arange(len(start)), count)  # candidate of each pair, ascending
    binding = ~many[gt]  # (P,) a crowd keeps nobody waiting
    gt = gt[binding]
    place = place[binding]
    level[np.bincount(place, minlength=len(start)) == 0] = 0
    for step in range(_PEELS):
        if not len(place):
            return level
        first = np.empty(len(many), np.int64)
        first[gt[::-1]] = place[::-1]  # the last one written is the best
        waiting = np.zeros(len(start), np.bool_)
        waiting[place[first[gt] != place]] = True
        level[place[~waiting[place]]] = step
        keep = waiting[place]
        gt, place = gt[keep], place[keep]
    rest = np.unique(place)
    begins = np.searchsorted(group[rest], group[rest], side="left")  # groups are ascending
    level[rest] = _PEELS + np.arange(len(rest)) - begins
    return level


def _by_level(level: IntArray, count: IntArray) -> Iterator[IntArray]:
    """Yield the candidates level by level, those with most pairs first."""
    order = np.lexsort((-count, level))
    cuts = np.flatnonzero(np.diff(level[order])) + 1
    yield from np.split(order, cuts)
