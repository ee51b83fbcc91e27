"""Greedy matching of detections to true boxes, for all IoU thresholds and size ranges at once.

The rule is that of pycocotools (`COCOeval.evaluateImg`). Within one image and class, detections
take boxes in order of their score. Each takes the free box with the highest overlap that reaches
the threshold, the later one on a tie, and an ignored box only if no other is left.

Two ideas make it fast in numpy. Detections that do not compete for a box are matched in one step,
so the number of steps is the length of the longest queue for one box. And the thresholds are the
bits of an integer: bit t says that a box is taken at threshold t. The bits of as many size ranges
as fit stand side by side in a word of 64 bits: bit a * T + t of `taken[0, g]` is box g at threshold
t in size range a.

Shapes: P pairs, C detections with at least one pair (candidates), G true boxes, T thresholds, A
size ranges, W words (one, if 64 bits hold T * A). `Bits` are unsigned integers of at least T bits.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfla.metrics.arrays import BoolArray, FloatArray, IntArray, stable_order
from rfla.metrics.overlaps import ALMOST_ONE, Overlaps
from rfla.metrics.protocols import MOST_IOUS

Bits = NDArray[np.unsignedinteger[Any]]
Words = NDArray[np.uint64]

ROUNDS = 32
"""Rounds after which long queues for one box are matched one by one (see `_steps`)."""


class Matched(NamedTuple):
    """What became of the candidates of one chunk."""

    det: IntArray  # (C,) row of the detection
    true: Bits  # (C, A) thresholds at which it took a box that counts: a true positive
    ignored: Bits  # (C, A) thresholds at which it took an ignored box: it does not count
    iou: FloatArray  # (C, A) IoU with the box taken at threshold `at`, 0 where none
    gt: IntArray  # (C,) row of the box taken at threshold `at` over all sizes, -1 where none


class _Words(NamedTuple):
    """What is found out about the candidates of one chunk, step by step."""

    true: Words  # (W, C)
    ignored: Words  # (W, C)
    iou: FloatArray  # (A, C)
    gt: IntArray  # (C,)


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
        self.is_ignored = ignored
        self.crowd = crowd
        self.at = at
        self.every_threshold = (1 << len(thresholds)) - 1
        # The narrowest integer with a bit for each threshold: ten thresholds take uint16.
        self.dtype = np.min_scalar_type(self.every_threshold)
        self.sizes_of_word = _words(ignored.shape[1], len(thresholds))
        # one bit for each size range: times this, thresholds are those of all of them
        self.every_size = self._in_words(np.ones((1, ignored.shape[1]), np.bool_), every=1)[:, 0]
        self.ignored = self._in_words(ignored, self.every_threshold)
        self.taken = np.zeros_like(self.ignored)

    def match(self, overlaps: Overlaps, group: IntArray) -> Matched:
        """Match one chunk.

        Args:
            overlaps: sorted by detection; rows of one group are in order of score.
            group: (D,) image and class of every detection row.
        """
        start = np.flatnonzero(np.diff(overlaps.det, prepend=-1))  # first pair of each candidate
        count = np.diff(start, append=len(overlaps.det))
        det = overlaps.det[start]
        reached = self._reached(overlaps.iou).astype(np.uint64)
        words = _Words(
            np.zeros((len(self.taken), len(det)), np.uint64),
            np.zeros((len(self.taken), len(det)), np.uint64),
            np.zeros((self.is_ignored.shape[1], len(det))),
            np.full(len(det), -1),
        )

        # The order within a step does not matter, since no two of its candidates want one box.
        step = _steps(overlaps.gt, self.crowd, start, count, group[det])
        for rows in _rows_by_step(step, count):
            for word in range(len(self.taken)):
                self._match_step(overlaps, reached, start[rows], count[rows], rows, word, words)

        true, ignored = self._by_size(words.true), self._by_size(words.ignored)
        if overlaps.iod is not None:
            self._ignore_inside(overlaps.gt, overlaps.iod, start, true, ignored)
        return Matched(det, true.T, ignored.T, words.iou.T, words.gt)

    def _reached(self, overlap: FloatArray) -> Bits:
        """Return (P,) the thresholds that each overlap reaches."""
        bits = np.zeros(len(overlap), self.dtype)
        for t, threshold in enumerate(self.thresholds):
            bits |= (overlap >= threshold).astype(self.dtype) << self.dtype.type(t)
        return bits

    def _in_words(self, flags: BoolArray, every: int) -> Words:
        """Return (W, G) the bits `every` in the size ranges in which flags (G, A) are true."""
        words = np.zeros((len(self.sizes_of_word), len(flags)), np.uint64)
        for word, sizes in enumerate(self.sizes_of_word):
            for place, size in enumerate(sizes):
                bits = np.uint64(every << place * len(self.thresholds))
                words[word] |= np.where(flags[:, size], bits, np.uint64(0))
        return words

    def _by_size(self, words: Words) -> Bits:
        """Return (A, C) the bits of each size range."""
        bits = [
            words[word] >> np.uint64(place * len(self.thresholds))
            for word, sizes in enumerate(self.sizes_of_word)
            for place in range(len(sizes))
        ]
        return np.stack([(b & np.uint64(self.every_threshold)).astype(self.dtype) for b in bits])

    def _match_step(
        self,
        overlaps: Overlaps,
        reached: Words,
        start: IntArray,
        count: IntArray,
        rows: IntArray,
        word: int,
        words: _Words,
    ) -> None:
        """Match candidates that do not compete with each other; those with most pairs first.

        Args:
            overlaps: of the chunk.
            reached: (P,) thresholds that each pair reaches, in the place of the first size range.
            start: (n,) first pair of each candidate, the one that it prefers.
            count: (n,) its number of pairs, descending.
            rows: (n,) the candidates.
            word: of the size ranges.
            words: to be filled.
        """
        taken, never_counts = self.taken[word], self.ignored[word]
        every_size = self.every_size[word]
        true = np.zeros(len(rows), np.uint64)
        ignored = np.zeros_like(true)
        offers = []
        for j in range(int(count[0])):
            several = int(np.searchsorted(-count, -j))  # candidates that have a j-th pair
            pair = start[:several] + j
            gt = overlaps.gt[pair]
            # Each candidate goes through its boxes from the best overlap down. A bit that it has
            # set already stays with the better box, so the next boxes may only set other bits.
            free = reached[pair] * every_size & ~taken[gt]
            new_true = free & ~never_counts[gt] & ~true[:several]
            new_ignored = free & never_counts[gt] & ~ignored[:several]
            true[:several] |= new_true
            ignored[:several] |= new_ignored
            offers.append((pair, gt, new_true, new_ignored))

        # only now is it known where no box that counts was left and an ignored one is taken
        for pair, gt, new_true, new_ignored in offers:
            takes = new_true | (new_ignored & ~true[: len(pair)])
            # A crowd can be taken any number of times, so it is never marked.
            taken[gt] |= np.where(self.crowd[gt], np.uint64(0), takes)
            self._keep_boxes(takes, gt, overlaps.iou[pair], rows[: len(pair)], word, words)
        words.true[word, rows] = true
        words.ignored[word, rows] = ignored & ~true

    def _keep_boxes(
        self,
        takes: Words,
        gt: IntArray,
        iou: FloatArray,
        rows: IntArray,
        word: int,
        words: _Words,
    ) -> None:
        """Keep the box taken at one threshold, for oLRP, the error types and the pictures.

        Args:
            takes: (n,) the thresholds at which each candidate takes a box.
            gt: (n,) that box.
            iou: (n,) their overlap.
            rows: (n,) the candidates.
            word: of the size ranges.
            words: to be filled.
        """
        for place, size in enumerate(self.sizes_of_word[word]):
            row = np.flatnonzero(is_set(takes, place * len(self.thresholds) + self.at))
            words.iou[size][rows[row]] = iou[row]
            if size == 0:
                words.gt[rows[row]] = gt[row]

    def _ignore_inside(
        self, gt: IntArray, iod: FloatArray, start: IntArray, true: Bits, ignored: Bits
    ) -> None:
        """Ignore unmatched detections that lie inside an ignored box (TinyPerson's IoD rule)."""
        for size in range(len(true)):
            # All thresholds at once: an ignored box is ignored at every one or at none.
            inside = np.where(self.is_ignored[gt, size], iod, 0.0)  # (P,)
            deepest = np.maximum.reduceat(inside, start)  # (C,)
            ignored[size] |= self._reached(deepest) & ~true[size]


def _words(sizes: int, thresholds: int) -> list[range]:
    """Return the size ranges of each word."""
    most = MOST_IOUS // thresholds
    return [range(first, min(first + most, sizes)) for first in range(0, sizes, most)]


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
    most = int(count.max(initial=0))
    order = stable_order(step * (most + 1) + most - count)
    cuts = np.flatnonzero(np.diff(step[order])) + 1
    yield from np.split(order, cuts)
