"""Greedy matching of detections to true boxes, for all IoU thresholds and size ranges at once.

The rule is that of pycocotools (`COCOeval.evaluateImg`). Within one image and class, detections
take boxes in order of their score. Each takes the free box with the highest overlap that reaches
the threshold, the later one on a tie, and an ignored box only if no other is left.

Two ideas make it fast in numpy. Detections that do not compete for a box are matched in one step,
so the number of steps is the length of the longest queue for one box. And the thresholds are the
bits of an integer: bit t of `taken[g, a]` says that box g is taken at threshold t in size range a.

Shapes: P pairs, C detections with at least one pair (candidates), G true boxes, T thresholds, A
size ranges. `Bits` are unsigned integers of at least T bits.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfla.metrics.arrays import BoolArray, FloatArray, IntArray
from rfla.metrics.overlaps import ALMOST_ONE, Overlaps

Bits = NDArray[np.unsignedinteger[Any]]

ROUNDS = 32
"""Rounds after which long queues for one box are matched one by one (see `_steps`)."""


class Matched(NamedTuple):
    """What became of the candidates of one chunk."""

    det: IntArray  # (C,) row of the detection
    true: Bits  # (C, A) thresholds at which it took a box that counts: a true positive
    ignored: Bits  # (C, A) thresholds at which it took an ignored box: it does not count
    iou: FloatArray  # (C, A) IoU with the box taken at threshold `at`, 0 where none
    gt: IntArray  # (C,) row of the box taken at threshold `at` over all sizes, -1 where none


class Matcher:
    """Matches chunk after chunk; holds what is taken.

    Args:
        thresholds: (T,) IoU, at most 64.
        ignored: (G, A) boxes that do not count in a size range.
        crowd: (G,) boxes that any number of detections may take.
        at: index of the threshold whose boxes are returned.
    """

    def __init__(
        self, thresholds: FloatArray, ignored: BoolArray, crowd: BoolArray, at: int
    ) -> None:
        # pycocotools lowers a threshold of exactly 1 a little, so that a perfect box can reach it.
        self.thresholds = np.minimum(thresholds, ALMOST_ONE)
        self.crowd = crowd
        self.at = at
        # The narrowest integer with a bit for each threshold: ten thresholds take uint16.
        self.dtype = np.min_scalar_type((1 << len(thresholds)) - 1)
        every_threshold = self.dtype.type((1 << len(thresholds)) - 1)
        self.ignored: Bits = np.where(ignored, every_threshold, self.dtype.type(0))
        self.taken: Bits = np.zeros_like(self.ignored)

    def match(self, overlaps: Overlaps, group: IntArray) -> Matched:
        """Match one chunk.

        Args:
            overlaps: sorted by detection; rows of one group are in order of score.
            group: (D,) image and class of every detection row.
        """
        start = np.flatnonzero(np.diff(overlaps.det, prepend=-1))  # first pair of each candidate
        count = np.diff(start, append=len(overlaps.det))
        det = overlaps.det[start]
        reached = self._reached(overlaps.iou)
        shape = (len(det), self.ignored.shape[1])
        result = Matched(
            det,
            np.zeros(shape, self.dtype),
            np.zeros(shape, self.dtype),
            np.zeros(shape),
            np.full(len(det), -1),
        )

        # The order within a step does not matter, since no two of its candidates want one box.
        step = _steps(overlaps.gt, self.crowd, start, count, group[det])
        for rows in _rows_by_step(step, count):
            self._match_step(overlaps, reached, start[rows], count[rows], rows, result)

        if overlaps.iod is not None:
            self._ignore_inside(overlaps, start, result)
        return result

    def _reached(self, overlap: FloatArray) -> Bits:
        """Return (P,) the thresholds that each overlap reaches."""
        bits = np.zeros(len(overlap), self.dtype)
        for t, threshold in enumerate(self.thresholds):
            bits |= (overlap >= threshold).astype(self.dtype) << self.dtype.type(t)
        return bits

    def _match_step(
        self,
        overlaps: Overlaps,
        reached: Bits,
        start: IntArray,
        count: IntArray,
        rows: IntArray,
        result: Matched,
    ) -> None:
        """Match candidates that do not compete with each other; those with most pairs first.

        Args:
            overlaps: of the chunk.
            reached: (P,) thresholds that each pair reaches.
            start: (n,) first pair of each candidate, the one that it prefers.
            count: (n,) its number of pairs, descending.
            rows: (n,) the candidates.
            result: to be filled.
        """
        true = np.zeros((len(rows), self.ignored.shape[1]), self.dtype)
        ignored = np.zeros_like(true)
        offers = []
        for j in range(int(count[0])):
            several = int(np.searchsorted(-count, -j))  # candidates that have a j-th pair
            pair = start[:several] + j
            gt = overlaps.gt[pair]
            # Each candidate goes through its boxes from the best overlap down. A bit that it has
            # set already stays with the better box, so the next boxes may only set other bits.
            free = reached[pair, None] & ~self.taken[gt]
            new_true = free & ~self.ignored[gt] & ~true[:several]
            new_ignored = free & self.ignored[gt] & ~ignored[:several]
            true[:several] |= new_true
            ignored[:several] |= new_ignored
            offers.append((pair, gt, new_true, new_ignored))

        # only now is it known where no box that counts was left and an ignored one is taken
        for pair, gt, new_true, new_ignored in offers:
            several = len(pair)
            takes = new_true | (new_ignored & ~true[:several])
            # A crowd can be taken any number of times, so it is never marked.
            self.taken[gt] |= np.where(self.crowd[gt, None], self.dtype.type(0), takes)
            # The box taken at one threshold is kept, for the error types and the pictures.
            row, size = np.nonzero(is_set(takes, self.at))
            result.iou[rows[row], size] = overlaps.iou[pair[row]]
            over_all = row[size == 0]
            result.gt[rows[over_all]] = gt[over_all]
        result.true[rows] = true
        result.ignored[rows] = ignored & ~true

    def _ignore_inside(self, overlaps: Overlaps, start: IntArray, result: Matched) -> None:
        """Ignore unmatched detections that lie inside an ignored box (TinyPerson's IoD rule)."""
        assert overlaps.iod is not None
        # All thresholds at once: an ignored box is ignored at every one or at none.
        inside = np.where(self.ignored[overlaps.gt] > 0, overlaps.iod[:, None], 0.0)  # (P, A)
        deepest = np.maximum.reduceat(inside, start, axis=0)  # (C, A)
        reached = self._reached(deepest.ravel()).reshape(deepest.shape)
        np.bitwise_or(result.ignored, reached & ~result.true, out=result.ignored)


def is_set(bits: Bits, t: int) -> BoolArray:
    """Return True where the bit of threshold `t` is set, in the shape of `bits`."""
    return np.asarray(bits & bits.dtype.type(1 << t), np.bool_)


def _steps(
    gt: IntArray, crowd: BoolArray, start: IntArray, count: IntArray, group: IntArray
) -> IntArray:
    """Return (C,) the step in which each candidate is matched.

    It comes after all better ones that want one of its boxes. Round by round, the candidates that
    are first in the queues for all of their boxes leave. Queues of hundreds of detections for one
    object are cut short: what is left after ROUNDS goes one by one within its group.

    Args:
        gt: (P,) true box of each pair.
        crowd: (G,) boxes that nobody has to wait for.
        start: (C,) first pair of each candidate.
        count: (C,) its number of pairs.
        group: (C,) ascending.
    """
    step = np.full(len(start), -1)
    candidate = np.repeat(np.arange(len(start)), count)  # of each pair, ascending
    queued = ~crowd[gt]
    gt, candidate = gt[queued], candidate[queued]
    # A candidate that wants crowds alone waits for nobody.
    step[np.bincount(candidate, minlength=len(start)) == 0] = 0

    first = np.empty(len(crowd), np.int64)
    for number in range(ROUNDS):
        if not len(candidate):
            return step
        first[gt[::-1]] = candidate[::-1]  # what is written last stays: the best of each queue
        waits = np.zeros(len(start), np.bool_)
        waits[candidate[first[gt] != candidate]] = True
        step[candidate[~waits[candidate]]] = number
        left = waits[candidate]
        gt, candidate = gt[left], candidate[left]

    # One by one: within its group each of the rest has a step of its own.
    rest = np.unique(candidate)
    group_start = np.searchsorted(group[rest], group[rest], side="left")
    step[rest] = ROUNDS + np.arange(len(rest)) - group_start
    return step


def _rows_by_step(step: IntArray, count: IntArray) -> Iterator[IntArray]:
    """Yield the candidates step by step, those with most pairs first."""
    # Most pairs first, so that those with a j-th pair are always a prefix of the step.
    order = np.lexsort((-count, step))
    cuts = np.flatnonzero(np.diff(step[order])) + 1
    yield from np.split(order, cuts)
