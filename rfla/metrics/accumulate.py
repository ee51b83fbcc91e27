"""Precision, recall and oLRP from evidence.

Precision is needed at true positives alone: between two of them it only falls, so its envelope and
the first place at which a recall is reached are at true positives. Everything else of a class
enters through one running count.

Shapes: K classes, T IoU thresholds, A size ranges, M detection limits, R = 101 recall levels, D_k
detections of a class in order of score, n true positives among them, N images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rfla.metrics.arrays import BoolArray, FloatArray, IntArray
from rfla.metrics.evidence import Evidence
from rfla.metrics.matching import MATCHED, MATCHED_IGNORED
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
    """One class in order of score; equal scores in the order of image and place."""

    score: FloatArray  # (D_k,)
    image: IntArray  # (D_k,) place of the image in the order of ids
    place: IntArray  # (D_k,) place in its image
    in_range: BoolArray  # (D_k, A) counts as a false positive if it has no match
    hits: list[list[IntArray]]  # [a][t] (n,) places of the true positives
    at: int  # index of the threshold of LRP
    overlap: list[FloatArray]  # [a] (n,) IoU of the true positives at it
    shift_at: list[
        list[IntArray]
    ]  # [a][t] places where a match changes whether the detection counts
    shift: list[list[IntArray]]  # [a][t] by how much, 1 or -1


def accumulate(
    evidence: Evidence,
    image_weights: FloatArray | None = None,
    lrp: bool | None = None,
    ranked: Sequence[Ranked] | None = None,
) -> Curves:
    """Compute all curves.

    Args:
        evidence: of `gather` or `merge`.
        image_weights: (N,) how often each image counts, by place in the order of ids (bootstrap);
            None: once.
        lrp: whether to compute oLRP; None: as the protocol says.
        ranked: of `rank`, to save time where the same evidence is accumulated many times.
    """
    protocol = evidence.protocol
    shape = (
        len(protocol.thresholds),
        evidence.num_classes,
        len(protocol.area_ranges),
        len(protocol.max_dets),
    )
    precision = np.full((shape[0], len(RECALLS), *shape[1:3]), ABSENT)
    recall = np.full(shape, ABSENT)
    points = np.full((*shape[1:], len(LrpPoint._fields)), ABSENT)
    boxes = _count_boxes(evidence, image_weights)
    with_lrp = protocol.lrp if lrp is None else lrp
    for k, of_class in enumerate(rank(evidence) if ranked is None else ranked):
        longest = int(of_class.place.max(initial=-1)) + 1
        for m in reversed(range(shape[3])):
            limit = protocol.max_dets[m]
            if (
                m + 1 < shape[3] and limit >= longest
            ):  # nothing is cut off: the same as the limit above
                recall[:, k, :, m], points[k, :, m] = recall[:, k, :, m + 1], points[k, :, m + 1]
                continue
            kept = of_class if limit >= longest else _first(of_class, limit)
            weights = None if image_weights is None else image_weights[kept.image]
            for a in np.flatnonzero(boxes[k] > 0).tolist():
                counter = _Counter(kept, weights, a, boxes[k, a])
                counter.fill_recall(recall[:, k, a, m])
                if m + 1 == shape[3]:
                    counter.fill_precision(precision[:, :, k, a])
                if with_lrp:
                    points[k, a, m] = counter.lrp(protocol.thresholds[kept.at])
    return Curves(precision, recall, points, boxes)


class _Counter:
    """Counts of one class in one size range."""

    def __init__(self, ranked: Ranked, weights: FloatArray | None, a: int, boxes: float) -> None:
        """Count how many detections count up to each, if none of them had a match.

        Args:
            ranked: one class.
            weights: (D_k,) of the images of the detections, or None.
            a: index of the size range.
            boxes: number of true boxes that count.
        """
        self.ranked, self.weights, self.a, self.boxes = ranked, weights, a, boxes
        counts = ranked.in_range[:, a]
        self.running = np.cumsum(counts if weights is None else counts * weights, dtype=np.float64)

    def found(self, t: int) -> FloatArray:
        """Return (n,) the number of true positives up to each."""
        hits = self.ranked.hits[self.a][t]
        return (
            np.arange(1.0, len(hits) + 1) if self.weights is None else np.cumsum(self.weights[hits])
        )

    def total(self, t: int) -> FloatArray:
        """Return (n,) the number of detections that count up to each true positive."""
        hits, at = self.ranked.hits[self.a][t], self.ranked.shift_at[self.a][t]
        shift = self.ranked.shift[self.a][t] * (1.0 if self.weights is None else self.weights[at])
        before = np.append(0.0, np.cumsum(shift))[np.searchsorted(at, hits, side="right")]
        return np.asarray(self.running[hits] + before)

    def fill_recall(self, recall: FloatArray) -> None:
        """Fill (T,)."""
        for t in range(len(recall)):
            found = self.found(t)
            recall[t] = found[-1] / self.boxes if len(found) else 0.0

    def fill_precision(self, precision: FloatArray) -> None:
        """Fill (T, R) with the highest precision at each recall or beyond, 0 where the recall is never reached."""
        for t in range(len(precision)):
            found = self.found(t)
            raw = found / (self.total(t) + np.spacing(1))
            envelope = np.append(np.maximum.accumulate(raw[::-1])[::-1], 0.0)
            precision[t] = envelope[np.searchsorted(found / self.boxes, RECALLS, side="left")]

    def lrp(self, tau: float) -> LrpPoint:
        """Return the best operating point."""
        at = self.ranked.at
        hits = self.ranked.hits[self.a][at]
        scores, overlap = self.ranked.score[hits], self.ranked.overlap[self.a]
        first = None if len(hits) and hits[0] == 0 else self._very_first(at)
        return optimal_lrp(self.found(at), self.total(at), overlap, scores, self.boxes, tau, first)

    def _very_first(self, at: int) -> tuple[float, float] | None:
        """Return (1 if a false positive else 0, score) of the surest detection, which is no true positive."""
        if not len(self.ranked.score):
            return None
        places = self.ranked.shift_at[self.a][at]
        swallowed = len(places) > 0 and places[0] == 0
        return float(self.ranked.in_range[0, self.a] and not swallowed), float(self.ranked.score[0])


def rank(evidence: Evidence) -> list[Ranked]:
    """Sort each class by score and note where its true positives are."""
    of_candidates = evidence.det_class[evidence.candidate]
    at = evidence.protocol.threshold_index(0.5) or 0
    ranked = []
    position = np.empty(len(evidence.score), np.int64)
    for k in range(evidence.num_classes):
        rows = np.flatnonzero(evidence.det_class == k)
        rows = rows[
            np.lexsort((evidence.place[rows], evidence.det_image[rows], -evidence.score[rows]))
        ]
        position[rows] = np.arange(len(rows))
        candidates = np.flatnonzero(of_candidates == k)
        candidates = candidates[np.argsort(position[evidence.candidate[candidates]])]
        places = position[evidence.candidate[candidates]]
        hits, overlap, shift_at, shift = [], [], [], []
        for a in range(evidence.in_range.shape[1]):
            state = np.ascontiguousarray(evidence.state[candidates, :, a].T)  # (T, C_k)
            counts = evidence.in_range[rows[places], a]
            change = ((state == MATCHED) & ~counts).astype(np.int64) - (
                (state == MATCHED_IGNORED) & counts
            )
            moved = [np.flatnonzero(of_threshold) for of_threshold in change]
            hits.append([places[of_threshold == MATCHED] for of_threshold in state])
            overlap.append(evidence.overlap[candidates[state[at] == MATCHED], a])
            shift_at.append([places[i] for i in moved])
            shift.append([of_threshold[i] for of_threshold, i in zip(change, moved, strict=True)])
        columns = (
            evidence.score[rows],
            evidence.det_image[rows],
            evidence.place[rows],
            evidence.in_range[rows],
        )
        ranked.append(Ranked(*columns, hits, at, overlap, shift_at, shift))
    return ranked


def _first(ranked: Ranked, limit: int) -> Ranked:
    """Return the class with only the `limit` surest detections of each image."""
    keep = ranked.place < limit
    new = np.cumsum(keep) - 1
    kept_hits = [[new[h[keep[h]]] for h in of_range] for of_range in ranked.hits]
    overlap = [o[keep[h[ranked.at]]] for o, h in zip(ranked.overlap, ranked.hits, strict=True)]
    shift_at = [[new[s[keep[s]]] for s in of_range] for of_range in ranked.shift_at]
    shift = [
        [value[keep[s]] for value, s in zip(values, places, strict=True)]
        for values, places in zip(ranked.shift, ranked.shift_at, strict=True)
    ]
    columns = (ranked.score[keep], ranked.image[keep], ranked.place[keep], ranked.in_range[keep])
    return Ranked(*columns, kept_hits, ranked.at, overlap, shift_at, shift)


def _count_boxes(evidence: Evidence, image_weights: FloatArray | None) -> FloatArray:
    """Return (K, A) the number of true boxes that count."""
    count = np.zeros((evidence.num_classes, evidence.gt_ignored.shape[1]))
    for a in range(count.shape[1]):
        rows = ~evidence.gt_ignored[:, a]
        own = None if image_weights is None else image_weights[evidence.gt_image[rows]]
        count[:, a] = np.bincount(evidence.gt_class[rows], own, minlength=evidence.num_classes)
    return count
