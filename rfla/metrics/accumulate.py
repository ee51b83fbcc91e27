"""Precision, recall and oLRP from matches.

Precision only matters at true positives: between two of them it falls, so its envelope and the
first detection at which a recall is reached are at true positives. So the arrays of a class hold
the detections that matched something, and the unmatched ones enter as one running count.

Shapes: K classes, T IoU thresholds, A size ranges, M detection limits, R = 101 recall levels, D_k
detections of a class in order of score, n of them matched at some threshold, N images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfla.metrics.arrays import BoolArray, FloatArray, IntArray, stable_order
from rfla.metrics.matches import Matches
from rfla.metrics.matching import Bits, is_set, unpack
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


class RankedClass(NamedTuple):
    """One class in order of score; equal scores in the order of image and rank in the image."""

    score: FloatArray  # (D_k,)
    image: IntArray  # (D_k,) position of the image in the order of ids
    rank_in_image: IntArray  # (D_k,)
    in_range: BoolArray  # (A, D_k) counts as a false positive if it has no match
    matched: IntArray  # (n,) positions of the detections with a match, ascending
    true: Bits  # (A, n) thresholds at which they are true positives
    ignored: Bits  # (A, n) thresholds at which they matched an ignored box
    iou: FloatArray  # (A, n) at the threshold of oLRP

    def best_of_each_image(self, limit: int) -> "RankedClass":
        """Return the class with only the `limit` best detections of each image."""
        kept = self.rank_in_image < limit
        matched = kept[self.matched]
        return RankedClass(
            self.score[kept],
            self.image[kept],
            self.rank_in_image[kept],
            self.in_range[:, kept],
            (np.cumsum(kept) - 1)[self.matched[matched]],
            self.true[:, matched],
            self.ignored[:, matched],
            self.iou[:, matched],
        )


def accumulate(
    matches: Matches,
    image_weights: FloatArray | None = None,
    lrp: bool | None = None,
    ranked: Sequence[RankedClass] | None = None,
) -> Curves:
    """Compute all curves.

    Args:
        matches: of `match_detections`.
        image_weights: (N,) how often each image counts, in the order of ids; None: once.
        lrp: whether to compute oLRP; None: as the protocol says.
        ranked: of `rank_classes`, to save time where the same matches are accumulated many times.
    """
    protocol = matches.protocol
    sizes, limits = len(protocol.area_ranges), protocol.max_dets
    thresholds, classes = len(protocol.thresholds), matches.num_classes
    precision = np.full((thresholds, len(RECALLS), classes, sizes), ABSENT)
    recall = np.full((thresholds, classes, sizes, len(limits)), ABSENT)
    points = np.full((classes, sizes, len(limits), len(LrpPoint._fields)), ABSENT)
    boxes, at = _count_boxes(matches, image_weights), matches.at
    with_lrp = protocol.lrp if lrp is None else lrp

    for k, of_class in enumerate(rank_classes(matches) if ranked is None else ranked):
        most = int(of_class.rank_in_image.max(initial=-1)) + 1  # detections of one image
        for m in reversed(range(len(limits))):
            if m + 1 < len(limits) and limits[m] >= most:  # cuts nothing off: as the limit above
                recall[:, k, :, m] = recall[:, k, :, m + 1]
                points[k, :, m] = points[k, :, m + 1]
                continue
            kept = of_class if limits[m] >= most else of_class.best_of_each_image(limits[m])
            weights = None if image_weights is None else image_weights[kept.image]
            present = np.flatnonzero(boxes[k] > 0).tolist()
            found = _count_found(kept, weights, thresholds, present)
            recall[:, k, present, m] = found / boxes[k, present]
            is_last = m + 1 == len(limits)
            for a in present if is_last or with_lrp else ():
                counts = _Counts(kept, weights, a, thresholds)
                if is_last:
                    precision[:, :, k, a] = counts.precision(boxes[k, a])
                if with_lrp:
                    points[k, a, m] = counts.lrp(boxes[k, a], at, protocol.thresholds[at])
    return Curves(precision, recall, points, boxes)


class _Counts:
    """The detections of one class that matter in one size range, and the counts at each of them.

    n here: those that are a true positive at some threshold, or that stop counting.

    Attributes:
        position: (n,) among the detections of the class.
        is_true: (T, n) the detection is a true positive.
        found: (T, n) number of true positives up to and with it.
        total: (T, n) number of detections that count up to and with it.
    """

    def __init__(
        self, ranked: RankedClass, weights: FloatArray | None, a: int, thresholds: int
    ) -> None:
        """Count.

        Args:
            ranked: one class.
            weights: (D_k,) of the images of the detections, or None.
            a: index of the size range.
            thresholds: T.
        """
        # A true positive counts though its own area is out of the range, and one that matched an
        # ignored box does not count though it is in the range.
        in_range = ranked.in_range[a]
        matched_in_range = in_range[ranked.matched]
        true, stops = ranked.true[a], np.where(matched_in_range, ranked.ignored[a], 0)
        rows = np.flatnonzero(true | stops)
        self.position = ranked.matched[rows]
        self.is_true = unpack(true[rows], thresholds)
        self.change = (self.is_true & ~matched_in_range[rows]).astype(np.int8)
        self.change -= unpack(stops[rows], thresholds)

        own = None if weights is None else weights[self.position]
        self.found = _running_sum(self.is_true, own)
        running = _running_sum(in_range, weights)
        self.total = running[self.position] + _running_sum(self.change, own)
        self.iou, self.score, self.in_range = ranked.iou[a, rows], ranked.score, in_range

    def precision(self, boxes: float) -> FloatArray:
        """Return (T, R) the highest precision at each recall or beyond.

        0 where a recall is never reached.
        """
        hits = np.flatnonzero(self.is_true)  # of all thresholds, one after the other
        found = self.found.ravel()[hits]
        at_true = found / (self.total.ravel()[hits] + np.spacing(1))
        reached = found / boxes
        precision = np.zeros((len(self.is_true), len(RECALLS)))
        start = 0
        ends = np.searchsorted(hits, np.arange(1, len(precision) + 1) * self.is_true.shape[1])
        for t, end in enumerate(ends.tolist()):
            of_threshold = slice(start, end)
            envelope = np.maximum.accumulate(at_true[of_threshold][::-1])[::-1]
            first = np.searchsorted(reached[of_threshold], RECALLS, side="left")
            first = first[first < end - start]
            precision[t, : len(first)] = envelope[first]
            start = end
        return precision

    def lrp(self, boxes: float, at: int, threshold: float) -> LrpPoint:
        """Return the best operating point at the IoU threshold of that index."""
        hits = np.flatnonzero(self.is_true[at])
        return optimal_lrp(
            self.found[at, hits].astype(np.float64),
            self.total[at, hits].astype(np.float64),
            self.iou[hits],
            self.score[self.position[hits]],
            boxes,
            threshold,
            self._first_unless_true(at),
        )

    def _first_unless_true(self, at: int) -> tuple[float, float] | None:
        """Return (1 if a false positive else 0, score) of the best detection.

        None where it is a true positive, or there is none.
        """
        if not len(self.score):
            return None
        matters = len(self.position) > 0 and self.position[0] == 0
        if matters and self.is_true[at, 0]:
            return None
        stops = matters and self.change[at, 0] < 0
        return float(self.in_range[0] and not stops), float(self.score[0])


def _running_sum(values: NDArray[Any], weights: FloatArray | None) -> NDArray[Any]:
    """Return the running sum (..., n), in integers where there are no weights: they are faster."""
    if weights is None:
        return np.cumsum(values, axis=-1, dtype=np.int32)
    return np.cumsum(values * weights, axis=-1)


def _count_found(
    ranked: RankedClass, weights: FloatArray | None, thresholds: int, sizes: Sequence[int]
) -> FloatArray:
    """Return (T, len(sizes)) the number of true positives in size ranges."""
    found = np.empty((thresholds, len(sizes)))
    own = None if weights is None else weights[ranked.matched]
    for t, column in np.ndindex(found.shape):
        is_true = is_set(ranked.true[sizes[column]], t)
        found[t, column] = np.count_nonzero(is_true) if own is None else own @ is_true
    return found


def rank_classes(matches: Matches) -> list[RankedClass]:
    """Sort each class by score."""
    # detections of all classes, by class and score
    span = int(matches.score_rank.max(initial=0)) + 1
    order = stable_order(matches.det_class * span + matches.score_rank)
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    ends = np.cumsum(np.bincount(matches.det_class, minlength=matches.num_classes)).tolist()

    # candidates with a match, in the same order
    has_match = np.flatnonzero(np.logical_or.reduce((matches.true | matches.ignored).T.copy()))
    has_match = has_match[np.argsort(position[matches.candidate[has_match]])]
    matched = position[matches.candidate[has_match]]
    matched_ends = np.searchsorted(matched, ends).tolist()

    score, image = matches.score[order], matches.det_image[order]
    rank_in_image = matches.rank_in_image[order]
    in_range = np.take(matches.in_range, order, axis=1)
    true = np.ascontiguousarray(matches.true[has_match].T)
    ignored = np.ascontiguousarray(matches.ignored[has_match].T)
    iou = np.ascontiguousarray(matches.iou[has_match].T)

    ranked = []
    for k in range(matches.num_classes):
        start, stop = (ends[k - 1] if k else 0), ends[k]
        of_class = slice(matched_ends[k - 1] if k else 0, matched_ends[k])
        ranked.append(
            RankedClass(
                score[start:stop],
                image[start:stop],
                rank_in_image[start:stop],
                in_range[:, start:stop],
                matched[of_class] - start,
                true[:, of_class],
                ignored[:, of_class],
                iou[:, of_class],
            )
        )
    return ranked


def _count_boxes(matches: Matches, image_weights: FloatArray | None) -> FloatArray:
    """Return (K, A) the number of true boxes that count."""
    count = np.zeros((matches.num_classes, matches.gt_ignored.shape[1]))
    for a in range(count.shape[1]):
        rows = ~matches.gt_ignored[:, a]
        weights = None if image_weights is None else image_weights[matches.gt_image[rows]]
        count[:, a] = np.bincount(matches.gt_class[rows], weights, minlength=matches.num_classes)
    return count
