"""Precision, recall and oLRP from evidence.

Precision is needed at true positives alone: between two of them it only falls, so its envelope and the first place at
which a recall is reached are at true positives. Everything else of a class enters through one running count.

Shapes: K classes, T IoU thresholds, A size ranges, M detection limits, R = 101 recall levels, D_k detections of a class
in order of score, C_k candidates among them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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


class _Class(NamedTuple):
    """One class in order of score."""

    score: FloatArray  # (D_k,)
    place: IntArray  # (D_k,)
    in_range: BoolArray  # (D_k, A)
    position: IntArray  # (C_k,) of the candidates among the D_k, ascending
    state: NDArray[np.uint8]  # (A, T, C_k)
    overlap: FloatArray  # (C_k, A)
    weight: FloatArray | None  # (D_k,) how often the image of each detection was drawn


def accumulate(evidence: Evidence, image_weights: FloatArray | None = None, lrp: bool | None = None) -> Curves:
    """Compute all curves.

    Args:
        evidence: of `gather` or `merge`.
        image_weights: (N,) how often each image counts, by place in the order of ids (bootstrap); None: once.
        lrp: whether to compute oLRP; None: as the protocol says.
    """
    protocol = evidence.protocol
    shape = (len(protocol.thresholds), evidence.num_classes, len(protocol.area_ranges), len(protocol.max_dets))
    precision = np.full((shape[0], len(RECALLS), *shape[1:3]), ABSENT)
    recall = np.full(shape, ABSENT)
    points = np.full((*shape[1:], len(LrpPoint._fields)), ABSENT)
    boxes = _count_boxes(evidence, image_weights)
    with_lrp = protocol.lrp if lrp is None else lrp
    classes = _split_classes(evidence, image_weights)
    for k, of_class in enumerate(classes):
        for a in range(shape[2]):
            if boxes[k, a] > 0:
                outputs = precision[:, :, k, a], recall[:, k, a], points[k, a]
                _one_range(of_class, a, boxes[k, a], evidence, with_lrp, *outputs)
    return Curves(precision, recall, points if with_lrp else np.full_like(points, ABSENT), boxes)


def _one_range(
    of_class: _Class,
    a: int,
    boxes: float,
    evidence: Evidence,
    lrp: bool,
    precision: FloatArray,
    recall: FloatArray,
    points: FloatArray,
) -> None:
    """Fill precision (T, R), recall (T, M) and points (M, 5) of one class and size range."""
    limits = evidence.protocol.max_dets
    at = evidence.protocol.threshold_index(0.5) or 0
    longest = int(of_class.place.max(initial=-1)) + 1
    for m in reversed(range(len(limits))):
        if m + 1 < len(limits) and limits[m] >= longest:  # nothing is cut off: the same as the limit above
            recall[:, m], points[m] = recall[:, m + 1], points[m + 1]
            continue
        kept = of_class if limits[m] >= longest else _first(of_class, limits[m])
        running = _running(kept, a)
        for t in range(len(recall)):
            hits, total = _hits(kept, running, a, t)
            found = _found(kept, hits)
            recall[t, m] = found[-1] / boxes if len(found) else 0.0
            if m + 1 == len(limits):
                precision[t] = _interpolated(found, total, boxes)
            if lrp and t == at:
                overlap = kept.overlap[hits, a]
                scores = kept.score[kept.position[hits]]
                tau, first = evidence.protocol.thresholds[at], _very_first(kept, a, at)
                points[m] = optimal_lrp(found, total, overlap, scores, boxes, tau, first)


def _running(of_class: _Class, a: int) -> FloatArray:
    """Return (D_k,) how many detections count up to each, if none of them had a match."""
    counts = of_class.in_range[:, a]
    return np.cumsum(counts if of_class.weight is None else counts * of_class.weight, dtype=np.float64)


def _hits(of_class: _Class, running: FloatArray, a: int, t: int) -> tuple[IntArray, FloatArray]:
    """Return (n,) the candidates that are true positives, and (n,) how many detections count up to each of them."""
    state = of_class.state[a, t]
    counts = of_class.in_range[of_class.position, a]
    change = ((state == MATCHED) & ~counts).astype(np.float64) - ((state == MATCHED_IGNORED) & counts)
    if of_class.weight is not None:
        change *= of_class.weight[of_class.position]
    hits = np.flatnonzero(state == MATCHED)
    total = running[of_class.position[hits]]
    return hits, total + np.cumsum(change)[hits] if change.any() else total


def _found(of_class: _Class, hits: IntArray) -> FloatArray:
    """Return (n,) the number of true positives up to each."""
    if of_class.weight is None:
        return np.arange(1.0, len(hits) + 1)
    return np.cumsum(of_class.weight[of_class.position[hits]])


def _interpolated(found: FloatArray, total: FloatArray, boxes: float) -> FloatArray:
    """Return (R,) the highest precision at each recall or beyond, 0 where the recall is never reached."""
    precision = found / (total + np.spacing(1))
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return envelope[np.minimum(np.searchsorted(found / boxes, RECALLS, side="left"), len(found))]


def _very_first(of_class: _Class, a: int, at: int) -> tuple[float, float] | None:
    """Return (1 if a false positive else 0, score) of the surest detection; None where it is a true positive."""
    state = of_class.state[a, at, 0] if len(of_class.position) and of_class.position[0] == 0 else 0
    if not len(of_class.score) or state == MATCHED:
        return None
    return float(of_class.in_range[0, a] and state != MATCHED_IGNORED), float(of_class.score[0])


def _first(of_class: _Class, limit: int) -> _Class:
    """Return the class with only the `limit` surest detections of each image."""
    keep = of_class.place < limit
    candidates = keep[of_class.position]
    new_position = np.cumsum(keep) - 1
    return _Class(
        of_class.score[keep],
        of_class.place[keep],
        of_class.in_range[keep],
        new_position[of_class.position[candidates]],
        of_class.state[:, :, candidates],
        of_class.overlap[candidates],
        None if of_class.weight is None else of_class.weight[keep],
    )


def _split_classes(evidence: Evidence, image_weights: FloatArray | None) -> list[_Class]:
    """Sort each class by score; equal scores stay in the order of image and place."""
    weights = None if image_weights is None else image_weights[evidence.det_image]
    of_candidates = evidence.det_class[evidence.candidate]
    classes = []
    for k in range(evidence.num_classes):
        rows = np.flatnonzero(evidence.det_class == k)
        rows = rows[np.lexsort((evidence.place[rows], evidence.det_image[rows], -evidence.score[rows]))]
        position = np.empty(len(evidence.score), np.int64)
        position[rows] = np.arange(len(rows))
        candidates = np.flatnonzero(of_candidates == k)
        places = position[evidence.candidate[candidates]]
        candidates = candidates[np.argsort(places)]
        classes.append(
            _Class(
                evidence.score[rows],
                evidence.place[rows],
                evidence.in_range[rows],
                np.sort(places),
                np.ascontiguousarray(evidence.state[candidates].transpose(2, 1, 0)),
                evidence.overlap[candidates],
                None if weights is None else weights[rows],
            )
        )
    return classes


def _count_boxes(evidence: Evidence, image_weights: FloatArray | None) -> FloatArray:
    """Return (K, A) the number of true boxes that count."""
    count = np.zeros((evidence.num_classes, evidence.gt_ignored.shape[1]))
    for a in range(count.shape[1]):
        rows = ~evidence.gt_ignored[:, a]
        own = None if image_weights is None else image_weights[evidence.gt_image[rows]]
        count[:, a] = np.bincount(evidence.gt_class[rows], own, minlength=evidence.num_classes)
    return count
