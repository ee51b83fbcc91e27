"""Why the figures are what they are: curves, calibration, confusion and error types.

Shapes: K classes, B bins of score or size, S size ranges, R = 101 recall levels.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from rfla.metrics.accumulate import ABSENT, RECALLS, accumulate
from rfla.metrics.arrays import Detections, FloatArray, GroundTruth, IntArray
from rfla.metrics.error_types import (
    BACKGROUND,
    CORRECT,
    IGNORED,
    TYPES,
    ErrorTypes,
    find_error_types,
)
from rfla.metrics.matches import Matches, match_detections
from rfla.metrics.protocols import Protocol, find_protocol
from rfla.metrics.result import Metrics, mean_of, summarize

CURVE_IOUS = (0.25, 0.5, 0.75, 0.9)
STEP, HALF_WINDOW = (
    0.25,
    0.25,
)  # octaves from one sliding window to the next, and on either side of its middle
MOST_OCTAVES = 10  # windows go from 1 to 1024 px at most, which bounds the memory
SCORE_BINS = 10
MISSES = ("found", "badly placed", "taken for another class", "not seen")


@dataclass(frozen=True)
class SizeCurve:
    """Recall and AP at IoU 0.5 against object size, in windows half an octave wide.

    Windows without boxes left out.
    """

    size: list[float]  # px of sqrt(area), middle of the window
    boxes: list[int]
    recall: list[float]  # mean over the boxes, not over classes
    ap: list[float]  # mean over classes


@dataclass(frozen=True)
class Calibration:
    """How often detections of a score are right at IoU 0.5.

    No bins where a score outside 0..1 is no probability.
    """

    score: list[float]  # (B,) mean score of the bin, bins without detections left out
    precision: list[float]
    count: list[int]
    error: (
        float  # expected calibration error: mean distance of score and precision, weighted by count
    )


@dataclass(frozen=True)
class Analysis:
    """All that the report shows beside the figures.

    `thresholds` are the scores at which counts are made.
    """

    names: list[str]
    thresholds: list[
        float | None
    ]  # (K,) the oLRP-optimal score of each class, None where it finds nothing
    precision_by_iou: dict[str, list[float]]  # (R,) mean over classes
    precision_by_size: dict[str, list[float]]  # (R,) at IoU 0.5
    by_size: SizeCurve
    calibration: Calibration
    confusion: list[list[int]]  # (K + 1, K + 1) rows truth, columns detected, last one background
    sizes: list[str]
    detection_kinds: dict[
        str, list[int]
    ]  # kind -> (S,) detections above the thresholds, by their own size
    box_fates: dict[str, list[int]]  # fate -> (S,) true boxes, by their size

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Study:
    """An evaluation with everything needed to look into it."""

    gt: GroundTruth
    detections: Detections
    metrics: Metrics
    analysis: Analysis
    errors: ErrorTypes
    matches: Matches


def study(gt: GroundTruth, detections: Detections, protocol: Protocol | str) -> Study:
    """Evaluate and analyse, class by class.

    Args:
        gt: ground truth of all images.
        detections: those of one detector.
        protocol: or its name; its oLRP is always computed: it gives each class its operating
            point.

    Raises:
        MetricError: as `evaluate_boxes`.
    """
    protocol = replace(find_protocol(protocol), lrp=True)  # its thresholds are the operating point
    matches = match_detections(gt, detections, protocol)
    metrics = summarize(accumulate(matches), protocol, gt)
    errors = find_error_types(gt, detections, matches)
    return Study(
        gt,
        detections,
        metrics,
        _analyse(gt, detections, matches, metrics, errors),
        errors,
        matches,
    )


def _analyse(
    gt: GroundTruth,
    detections: Detections,
    matches: Matches,
    metrics: Metrics,
    errors: ErrorTypes,
) -> Analysis:
    protocol = matches.protocol
    thresholds = operating_points(metrics)
    sure = detections.scores[errors.det_row] >= thresholds[detections.labels[errors.det_row]]
    return Analysis(
        names=list(gt.names),
        thresholds=[float(t) if np.isfinite(t) else None for t in thresholds],
        precision_by_iou=_precision_by_iou(metrics),
        precision_by_size=_precision_by_size(metrics),
        by_size=size_curve(gt, detections, protocol),
        calibration=calibrate(detections.scores[errors.det_row], errors),
        confusion=confusion(gt, detections, protocol, errors.det_row[sure]).tolist(),
        sizes=list(protocol.size_names[1:]),
        detection_kinds=_kinds_by_size(detections, errors, sure, protocol),
        box_fates=_fates_by_size(gt, errors, thresholds, protocol),
    )


def operating_points(metrics: Metrics) -> FloatArray:
    """Return (K,) the score at which each class makes the least error.

    Above all scores where it finds nothing.
    """
    points = np.array(
        [row["threshold"] if row["boxes"] else np.nan for row in metrics.per_class], np.float64
    )
    return np.where(np.isnan(points), np.inf, points)


def size_curve(gt: GroundTruth, detections: Detections, protocol: Protocol) -> SizeCurve:
    """Evaluate in sliding windows of size at IoU 0.5, by the rules of the protocol."""
    middles = _middles(gt)
    windows = tuple(
        (f"w{i}", 2 ** (o - HALF_WINDOW), 2 ** (o + HALF_WINDOW)) for i, o in enumerate(middles)
    )
    rules = replace(
        protocol,
        ious=(0.5,),
        extra_ious=(),
        sizes=windows,
        max_dets=protocol.max_dets[-1:],
        lrp=False,
    )
    curves = accumulate(match_detections(gt, detections, rules))
    boxes = curves.boxes[:, 1:].sum(axis=0)  # (windows,)
    found = (np.maximum(curves.recall[0, :, 1:, 0], 0) * curves.boxes[:, 1:]).sum(axis=0)
    kept = np.flatnonzero(boxes)
    return SizeCurve(
        size=[float(2 ** middles[i]) for i in kept],
        boxes=[int(boxes[i]) for i in kept],
        recall=[float(found[i] / boxes[i]) for i in kept],
        ap=[mean_of(curves.precision[0, :, :, i + 1]) for i in kept],
    )


def _middles(gt: GroundTruth) -> FloatArray:
    """Return the middles of the sliding windows in octaves (log2 of px).

    Every box of 1 px or more is in a window.
    """
    assert gt.area is not None
    octaves = np.log2(gt.area[gt.area > 0]) / 2
    if not len(octaves):
        return np.zeros(0)
    ends = np.rint(np.array([octaves.min(), octaves.max()]).clip(0, MOST_OCTAVES) / STEP)
    return np.arange(ends[0], ends[1] + 1) * STEP


def calibrate(scores: FloatArray, errors: ErrorTypes) -> Calibration:
    """Compare scores (D,) with the share of correct detections in bins of equal width.

    Ignored ones are left out.
    """
    counted = errors.type != IGNORED
    score, correct = scores[counted], errors.type[counted] == CORRECT
    if len(score) and not 0 <= score.min() <= score.max() <= 1:
        return Calibration([], [], [], 0.0)
    bins = np.clip((score * SCORE_BINS).astype(np.int64), 0, SCORE_BINS - 1)
    count = np.bincount(bins, minlength=SCORE_BINS)
    kept = np.flatnonzero(count)
    mean = np.bincount(bins, score, SCORE_BINS)[kept] / count[kept]
    precision = np.bincount(bins, correct, SCORE_BINS)[kept] / count[kept]
    error = float(np.abs(mean - precision) @ count[kept] / max(count.sum(), 1))
    return Calibration(mean.tolist(), precision.tolist(), count[kept].tolist(), error)


def confusion(
    gt: GroundTruth, detections: Detections, protocol: Protocol, rows: IntArray
) -> IntArray:
    """Return (K + 1, K + 1) how often a box of one class was found as another, at IoU 0.5.

    Matched without regard to class, by score. The last row holds detections of nothing, the last
    column missed boxes.

    Args:
        gt: the true boxes.
        detections: all of them.
        protocol: for what is ignored.
        rows: the detections that are looked at: those above the thresholds of their classes.
    """
    sides = detections.sides
    assert sides is not None
    sure = Detections(
        detections.image_index[rows],
        detections.boxes[rows],
        detections.scores[rows],
        detections.labels[rows],
        sides[rows],
    )
    limit = (max(len(rows), 1),)  # the limits of the protocol are for one class
    rules = replace(protocol, ious=(0.5,), extra_ious=(), sizes=(), max_dets=limit, lrp=False)
    matches = match_detections(gt, sure, rules, use_categories=False)
    errors = find_error_types(gt, sure, matches)
    classes = len(gt.names)
    table = np.zeros((classes + 1, classes + 1), np.int64)
    correct = np.zeros(len(matches.det_row), np.int64)
    correct[matches.candidate] = matches.candidate_gt
    hits = np.flatnonzero(errors.type == CORRECT)
    label = sure.labels[matches.det_row]
    np.add.at(table, (gt.labels[correct[hits]], label[hits]), 1)
    np.add.at(table[classes], label[(errors.type != CORRECT) & (errors.type != IGNORED)], 1)
    missed = errors.counted & np.isneginf(errors.found_score)
    np.add.at(table[:, classes], gt.labels[errors.gt_row[missed]], 1)
    return table


def _precision_by_iou(metrics: Metrics) -> dict[str, list[float]]:
    indices = {iou: metrics.protocol.threshold_index(iou) for iou in CURVE_IOUS}
    precision = metrics.curves.precision
    return {
        f"{iou:g}": _mean_curve(precision[t, :, :, 0])
        for iou, t in indices.items()
        if t is not None
    }


def _precision_by_size(metrics: Metrics) -> dict[str, list[float]]:
    precision = metrics.curves.precision[metrics.protocol.at]  # (R, K, A)
    return {
        name: _mean_curve(precision[:, :, a]) for a, name in enumerate(metrics.protocol.size_names)
    }


def _mean_curve(precision: FloatArray) -> list[float]:
    """Return (R,) the mean over the classes (R, K) that have boxes; empty where none has."""
    present = precision[0] > ABSENT
    return [float(p) for p in precision[:, present].mean(axis=1)] if present.any() else []


def _size_rows(area: FloatArray, protocol: Protocol) -> Sequence[IntArray]:
    """Return the rows of each size range; an area on an edge belongs to both, as in the figures."""
    return [
        np.flatnonzero((area >= low) & (area <= high)) for low, high in protocol.area_ranges[1:]
    ]


def _kinds_by_size(
    detections: Detections,
    errors: ErrorTypes,
    sure: np.ndarray[Any, np.dtype[np.bool_]],
    protocol: Protocol,
) -> dict[str, list[int]]:
    assert detections.sides is not None
    area = detections.sides[errors.det_row].prod(axis=1)
    counts = [
        np.bincount(errors.type[rows][sure[rows]], minlength=BACKGROUND + 1)
        for rows in _size_rows(area, protocol)
    ]
    return {
        kind: [int(count[k]) for count in counts] for k, kind in enumerate(TYPES) if k != IGNORED
    }


def _fates_by_size(
    gt: GroundTruth, errors: ErrorTypes, thresholds: FloatArray, protocol: Protocol
) -> dict[str, list[int]]:
    assert gt.area is not None
    rows = errors.gt_row
    own = thresholds[gt.labels[rows]]
    others = np.where(errors.wrong_class_label < 0, np.inf, thresholds[errors.wrong_class_label])
    fate = np.select(
        [
            errors.found_score >= own,
            errors.localisation_score >= own,
            errors.wrong_class_score >= others,
        ],
        [0, 1, 2],
        3,
    )
    by_size = _size_rows(gt.area[rows], protocol)
    counts = [np.bincount(fate[r][errors.counted[r]], minlength=len(MISSES)) for r in by_size]
    return {name: [int(count[k]) for count in counts] for k, name in enumerate(MISSES)}


def recall_axis() -> list[float]:
    """Return (R,) the recall levels of the precision curves."""
    return [float(level) for level in RECALLS]
