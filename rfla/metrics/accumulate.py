"""Precision, recall and oLRP from matches.

Precision only matters at true positives: between two of them it falls, so its envelope and the
first detection at which a recall is reached are at true positives. So the arrays hold the
detections that matched something, and the unmatched ones enter as one running count.

Shapes: K classes, T IoU thresholds, A size ranges, M detection limits, R = 101 recall levels, N
images, D detections of all classes, by class and score, n of them matched at some threshold, C
candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfla.metrics.arrays import BoolArray, FloatArray, IntArray, stable_order
from rfla.metrics.matches import Matches
from rfla.metrics.matching import Bits, is_set
from rfla.metrics.olrp import LrpPoint, optimal_lrp

RECALLS = np.linspace(0.0, 1.0, 101)
ABSENT = -1.0
"""Value of every figure of a class that has no box to find, as in pycocotools."""


@dataclass(frozen=True, eq=False)
class Curves:
    """The raw results, with the axes of pycocotools; ABSENT where a class has no true box."""

    precision: FloatArray  # (T, R, K, A) at the highest detection limit
    recall: FloatArray  # (T, K, A, M)
    lrp: FloatArray  # (K, A, M, 5): oLRP, Loc, FP, FN, threshold
    boxes: FloatArray  # (K, A) number of true boxes that count


class Ranked(NamedTuple):
    """All detections by class, then by score; equal scores by image and rank in the image."""

    score: FloatArray  # (D,)
    image: IntArray  # (D,) position of the image in the order of ids
    rank_in_image: IntArray  # (D,)
    in_range: BoolArray  # (A, D) counts as a false positive if it has no match
    class_start: IntArray  # (K + 1,) first detection of each class, and D
    matched: IntArray  # (n,) positions of the detections with a match, ascending
    label: IntArray  # (n,) their class
    true: Bits  # (A, n) thresholds at which they are true positives
    ignored: Bits  # (A, n) thresholds at which they matched an ignored box
    candidate: IntArray  # (n,) their row in `iou`
    iou: FloatArray  # (C, A) at the threshold of oLRP

    def best_of_each_image(self, limit: int) -> "Ranked":
        """Return only the `limit` best detections of each class and image."""
        kept = self.rank_in_image < limit
        rows, matched = np.flatnonzero(kept), np.flatnonzero(kept[self.matched])
        before = np.append(0, np.cumsum(kept))  # number of kept ones before each detection
        return self._replace(
            score=self.score[rows],
            image=self.image[rows],
            rank_in_image=self.rank_in_image[rows],
            in_range=_columns(self.in_range, rows),
            class_start=before[self.class_start],
            matched=before[self.matched[matched]],
            label=self.label[matched],
            true=_columns(self.true, matched),
            ignored=_columns(self.ignored, matched),
            candidate=self.candidate[matched],
        )


def accumulate(
    matches: Matches,
    image_weights: FloatArray | None = None,
    ranked: Ranked | None = None,
) -> Curves:
    """Compute all curves.

    Args:
        matches: of `match_detections`.
        image_weights: (N,) how often each image counts, in the order of ids; None: once.
        ranked: of `rank_detections`, to save time where the same matches are accumulated many
            times.
    """
    protocol = matches.protocol
    sizes, limits = len(protocol.area_ranges), protocol.max_dets
    thresholds, classes = len(protocol.thresholds), matches.num_classes
    precision = np.full((thresholds, len(RECALLS), classes, sizes), ABSENT)
    recall = np.full((thresholds, classes, sizes, len(limits)), ABSENT)
    points = np.full((classes, sizes, len(limits), len(LrpPoint._fields)), ABSENT)
    boxes = _count_boxes(matches, image_weights)
    ranked = rank_detections(matches) if ranked is None else ranked

    for a in range(sizes):
        counts = _Counts(ranked, image_weights, a, range(thresholds))
        present = np.flatnonzero(boxes[:, a] > 0)
        curve = counts.precision(boxes[:, a])[:, present]  # (T, present, R)
        precision[:, :, present, a] = curve.transpose(0, 2, 1)
        for m, limit in enumerate(limits):
            found = counts.found_within(limit)[:, present]
            recall[:, present, a, m] = found / boxes[present, a]

    if protocol.lrp:
        _fill_lrp(points, matches, ranked, image_weights, boxes)
    return Curves(precision, recall, points, boxes)


def _fill_lrp(
    points: FloatArray,
    matches: Matches,
    ranked: Ranked,
    image_weights: FloatArray | None,
    boxes: FloatArray,
) -> None:
    """Fill in the best operating points (K, A, M, 5) of the classes that have a box."""
    limits, at = matches.protocol.max_dets, matches.protocol.at
    most = int(ranked.rank_in_image.max(initial=-1)) + 1  # detections of one class and image
    for m in reversed(range(len(limits))):
        if m + 1 < len(limits) and limits[m] >= most:  # cuts nothing off: as the limit above
            points[:, :, m] = points[:, :, m + 1]
            continue
        kept = ranked if limits[m] >= most else ranked.best_of_each_image(limits[m])
        for a in range(boxes.shape[1]):
            counts = _Counts(kept, image_weights, a, [at])
            for k in np.flatnonzero(boxes[:, a] > 0).tolist():
                points[k, a, m] = counts.lrp(k, boxes[k, a], matches.protocol.thresholds[at])


class _Counts:
    """The true positives of one size range, and the counts of their class at each of them.

    Shapes: H true positives, ordered by threshold, class and score; n detections that are a true
    positive at some threshold, or that stop counting. T here is the number of chosen thresholds.

    Attributes:
        count: (T, K) number of true positives.
        start: (T, K) the first of them among the H.
        found: (H,) number of true positives of the class up to and with this one.
        total: (H,) number of detections of the class that count up to and with it.
        hit: (H,) which of the n it is.
        rows: (n,) which of the detections with a match they are.
    """

    def __init__(
        self,
        ranked: Ranked,
        image_weights: FloatArray | None,
        a: int,
        thresholds: Sequence[int],
    ) -> None:
        """Count.

        Args:
            ranked: all detections.
            image_weights: (N,), or None.
            a: index of the size range.
            thresholds: indices of the chosen ones.
        """
        self.ranked, self.a, self.thresholds = ranked, a, thresholds
        in_range = ranked.in_range[a]
        matched_in_range = in_range[ranked.matched]
        # one that matched an ignored box does not count though it is in the range
        stops = np.where(matched_in_range, ranked.ignored[a], 0)
        self.rows = np.flatnonzero(ranked.true[a] | stops)
        true, stops = ranked.true[a][self.rows], stops[self.rows]
        # and a true positive counts though its own area is out of the range
        joins = np.where(matched_in_range[self.rows], 0, true)

        position, self.label = ranked.matched[self.rows], ranked.label[self.rows]
        hits = [np.flatnonzero(is_set(true, t)) for t in thresholds]
        self.hit = np.concatenate(hits)
        weights = None if image_weights is None else image_weights[ranked.image]
        self.own = None if weights is None else weights[position]
        self._group(hits)
        before = ranked.class_start[self.label]
        total = _count_between(in_range, weights, before, position + 1)[self.hit]
        if (joins | stops).any():
            total = total + self._changes(joins, stops, hits)
        self.total = total
        self.found = self._found()

    def _group(self, hits: Sequence[IntArray]) -> None:
        """Count the true positives of each threshold and class."""
        classes = len(self.ranked.class_start) - 1
        threshold = np.repeat(np.arange(len(hits)), [len(of_threshold) for of_threshold in hits])
        self.group = threshold * classes + self.label[self.hit]
        count = np.bincount(self.group, minlength=len(hits) * classes)
        self.count = count.reshape(len(hits), classes)
        self.start = (np.cumsum(count) - count).reshape(self.count.shape)

    def _found(self) -> NDArray[Any]:
        first, end = self.start.ravel()[self.group], np.arange(1, len(self.group) + 1)
        if self.own is None:
            return np.asarray(end - first)
        own = self.own[self.hit]
        return _count_between(np.ones(len(own), np.bool_), own, first, end)

    def _changes(self, joins: Bits, stops: Bits, hits: Sequence[IntArray]) -> NDArray[Any]:
        """Return (H,) by how much more or less than its range says each total is."""
        before = np.searchsorted(self.label, self.label)  # the first of its class among the n
        changes = []
        for t, of_threshold in zip(self.thresholds, hits, strict=True):
            change = is_set(joins, t).astype(np.int8) - is_set(stops, t)
            changes.append(_count_between(change, self.own, before[of_threshold], of_threshold + 1))
        return np.concatenate(changes)

    def found_within(self, limit: int) -> FloatArray:
        """Return (T, K) the number of true positives among the `limit` best of each image."""
        rank = self.ranked.rank_in_image[self.ranked.matched[self.rows]]
        if self.own is None and limit > rank.max(initial=0):
            return self.count.astype(np.float64)
        kept = np.flatnonzero((rank < limit)[self.hit])
        weights = None if self.own is None else self.own[self.hit[kept]]
        found = np.bincount(self.group[kept], weights, minlength=self.count.size)
        return found.reshape(self.count.shape).astype(np.float64)

    def precision(self, boxes: FloatArray) -> FloatArray:
        """Return (T, K, R) the highest precision at each recall or beyond.

        0 where a recall is never reached.

        Args:
            boxes: (K,) number of true boxes.
        """
        at_true = self.found / (self.total + np.spacing(1))
        first = self._first_to_reach(boxes)
        reached = first < self.count[:, :, None]
        precision = np.zeros(first.shape)
        if reached.any():
            # the highest from one recall to the next, then from each to the last
            segments = (first + self.start[:, :, None])[reached]
            precision[reached] = np.maximum.reduceat(at_true, segments)
        return np.maximum.accumulate(precision[:, :, ::-1], axis=2)[:, :, ::-1]

    def _first_to_reach(self, boxes: FloatArray) -> IntArray:
        """Return (T, K, R) which true positive of a threshold and class first reaches a recall."""
        first = np.empty((*self.count.shape, len(RECALLS)), np.int64)
        first[:] = self.count[:, :, None]  # never
        for k in np.flatnonzero(boxes > 0).tolist():
            if self.own is None:  # the same numbers at all thresholds, of some more than of others
                recall = np.arange(1, self.count[:, k].max() + 1) / boxes[k]
                first[:, k] = np.searchsorted(recall, RECALLS)
                continue
            for t, start in enumerate(self.start[:, k].tolist()):
                found = self.found[start : start + self.count[t, k]]
                first[t, k] = np.searchsorted(found / boxes[k], RECALLS)
        return first

    def lrp(self, k: int, boxes: float, threshold: float) -> LrpPoint:
        """Return the best operating point of a class at the one chosen threshold.

        Args:
            k: the class.
            boxes: number of its true boxes.
            threshold: the IoU.
        """
        ranked, start = self.ranked, int(self.start[0, k])
        hits = slice(start, start + int(self.count[0, k]))
        rows = self.rows[self.hit[hits]]
        return optimal_lrp(
            self.found[hits].astype(np.float64),
            self.total[hits].astype(np.float64),
            ranked.iou[ranked.candidate[rows], self.a],
            ranked.score[ranked.matched[rows]],
            boxes,
            threshold,
            self._first_unless_true(k),
        )

    def _first_unless_true(self, k: int) -> tuple[float, float] | None:
        """Return (1 if a false positive else 0, score) of the best detection of a class.

        None where it is a true positive, or there is none.
        """
        ranked, at = self.ranked, self.thresholds[0]
        first, end = ranked.class_start[k : k + 2].tolist()
        if first == end:
            return None
        counts = bool(ranked.in_range[self.a, first])
        row = int(np.searchsorted(ranked.matched, first))
        if row < len(ranked.matched) and ranked.matched[row] == first:
            if is_set(ranked.true[self.a, row], at):
                return None
            counts = counts and not is_set(ranked.ignored[self.a, row], at)
        return float(counts), float(ranked.score[first])


def _count_between(
    values: NDArray[Any], weights: FloatArray | None, first: IntArray, end: IntArray
) -> NDArray[Any]:
    """Return the sums of values[first:end], in integers where there are no weights: faster."""
    weighted = values if weights is None else values * weights
    kind = np.int32 if weights is None else np.float64
    running: NDArray[Any] = np.empty(len(values) + 1, kind)
    running[0] = 0
    np.cumsum(weighted, dtype=kind, out=running[1:])
    return np.asarray(running[end] - running[first])


def _columns(values: NDArray[Any], chosen: IntArray) -> NDArray[Any]:
    """Return some columns (A, m) of (A, n), row by row: much faster than `take` in numpy."""
    return np.stack([row[chosen] for row in values])


def rank_detections(matches: Matches) -> Ranked:
    """Sort the detections by class and score."""
    by_score = np.full(int(matches.score_rank.max(initial=-1)) + 1, -1)
    by_score[matches.score_rank] = np.arange(len(matches.score_rank))
    by_score = by_score[by_score >= 0]
    order = by_score[stable_order(matches.det_class[by_score])]
    per_class = np.bincount(matches.det_class, minlength=matches.num_classes)

    # candidates with a match, in the same order
    has_match = np.flatnonzero(np.logical_or.reduce((matches.true | matches.ignored).T))
    candidate = np.full(len(order), -1)
    candidate[matches.candidate[has_match]] = has_match
    candidate = candidate[order]
    matched = np.flatnonzero(candidate >= 0)
    candidate = candidate[matched]
    return Ranked(
        score=matches.score[order],
        image=matches.det_image[order],
        rank_in_image=matches.rank_in_image[order],
        in_range=_columns(matches.in_range, order),
        class_start=np.append(0, np.cumsum(per_class)),
        matched=matched,
        label=matches.det_class[order[matched]],
        true=_columns(matches.true.T, candidate),
        ignored=_columns(matches.ignored.T, candidate),
        candidate=candidate,
        iou=matches.iou,
    )


def _count_boxes(matches: Matches, image_weights: FloatArray | None) -> FloatArray:
    """Return (K, A) the number of true boxes that count."""
    count = np.zeros((matches.num_classes, matches.gt_ignored.shape[1]))
    for a in range(count.shape[1]):
        rows = ~matches.gt_ignored[:, a]
        weights = None if image_weights is None else image_weights[matches.gt_image[rows]]
        count[:, a] = np.bincount(matches.gt_class[rows], weights, minlength=matches.num_classes)
    return count
