"""The error type of every detection, and what became of every true box, at IoU 0.5.

Detections take boxes in order of score, so the type of one does not depend on those with a lower
score, and holds for any score threshold. Only "missed" needs a threshold: a box is missed where the
detection that found it has a lower score.

Shapes: D detections (the best of each image and class, as the protocol limits), G true boxes, P
pairs.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfla.metrics.arrays import BoolArray, Detections, FloatArray, GroundTruth, IntArray
from rfla.metrics.matches import Matches
from rfla.metrics.overlaps import find_overlaps, grouped_boxes

MIN_IOU = 0.1
"""IoU from which a detection that misses a box is a localisation error, as in TIDE (ECCV 2020)."""

CORRECT, IGNORED, DUPLICATE, WRONG_CLASS, LOCALISATION, BACKGROUND = range(6)
TYPES = ("correct", "ignored", "duplicate", "class", "localisation", "background")
"""Types of detections.

Duplicate: IoU 0.5 with a box that a detection with a higher score took. Class: IoU 0.5 with a box
of another class.
"""


@dataclass(frozen=True, eq=False)
class ErrorTypes:
    """One row for each detection and each true box. Scores are -inf where there is no detection."""

    det_row: IntArray  # (D,) row in Detections
    type: NDArray[np.uint8]  # (D,) index in TYPES
    iou: FloatArray  # (D,) of a correct detection with its box, 0 otherwise
    gt_row: IntArray  # (G,) row in GroundTruth
    counted: BoolArray  # (G,) neither crowd nor ignored nor out of all size ranges
    found_score: FloatArray  # (G,) of the detection that found it
    localisation_score: FloatArray  # (G,) highest of the localisation errors of its class on it
    wrong_class_score: FloatArray  # (G,) highest of the class errors on it
    wrong_class_label: IntArray  # (G,) label of that class error; -1 none


class _ImagePairs(NamedTuple):
    """Overlapping pairs of one image, whatever their classes."""

    det: IntArray  # (P,) position among the D
    gt: IntArray  # (P,) position among the G
    iou: FloatArray  # (P,)
    same_class: BoolArray  # (P,)


def find_error_types(gt: GroundTruth, detections: Detections, matches: Matches) -> ErrorTypes:
    """Classify everything, from matches made with categories."""
    pairs = _pairs_of_images(gt, detections, matches)
    count = len(matches.det_row)
    correct, ignored = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    correct[matches.candidate] = matches.true_at_half()
    ignored[matches.candidate] = matches.ignored_at_half()
    iou = np.zeros(count)
    iou[matches.candidate] = np.where(matches.true_at_half(), matches.iou[:, 0], 0.0)

    # an unmatched detection whose own area is out of all ranges does not count
    matched = correct | ignored
    ignored |= ~matched & ~matches.in_range[0]

    hits = pairs.iou >= 0.5
    rules = {
        CORRECT: correct,
        IGNORED: ignored,
        DUPLICATE: _has_pair(pairs, hits & pairs.same_class, count),
        WRONG_CLASS: _has_pair(pairs, hits & ~pairs.same_class, count),
        LOCALISATION: _has_pair(pairs, pairs.same_class, count),
    }
    types = np.select(list(rules.values()), list(rules), BACKGROUND).astype(np.uint8)
    return ErrorTypes(
        matches.det_row,
        types,
        iou,
        matches.gt_row,
        ~matches.gt_ignored[:, 0],
        _found_scores(gt, matches),
        _localisation_scores(matches, pairs, types),
        *_wrong_classes(matches, pairs, types),
    )


def _pairs_of_images(gt: GroundTruth, detections: Detections, matches: Matches) -> _ImagePairs:
    """Find all pairs of an image with IoU of MIN_IOU or more."""
    assert gt.sides is not None and detections.sides is not None
    det_order = np.argsort(matches.det_image, kind="stable")
    gt_order = np.argsort(matches.gt_image, kind="stable")
    rows, gt_rows = matches.det_row[det_order], matches.gt_row[gt_order]
    dets = grouped_boxes(matches.det_image[det_order], detections.boxes, detections.sides, rows)
    truths = grouped_boxes(matches.gt_image[gt_order], gt.boxes, gt.sides, gt_rows)
    chunks = list(find_overlaps(dets, truths, np.zeros(len(gt_rows), np.bool_), MIN_IOU))
    if not chunks:
        nothing = np.zeros(0, np.int64)
        return _ImagePairs(nothing, nothing, np.zeros(0), np.zeros(0, np.bool_))

    det = det_order[np.concatenate([chunk.det for chunk in chunks])]
    box = gt_order[np.concatenate([chunk.gt for chunk in chunks])]
    same_class = matches.det_class[det] == matches.gt_class[box]
    return _ImagePairs(det, box, np.concatenate([chunk.iou for chunk in chunks]), same_class)


def _has_pair(pairs: _ImagePairs, chosen: BoolArray, count: int) -> BoolArray:
    """Return (D,) True for detections that have one of the chosen pairs (P,)."""
    return np.bincount(pairs.det[chosen], minlength=count) > 0


def _found_scores(gt: GroundTruth, matches: Matches) -> FloatArray:
    """Return (G,) the score of the detection that found each box."""
    position = np.full(len(gt.labels), -1)
    position[matches.gt_row] = np.arange(len(matches.gt_row))
    score = np.full(len(matches.gt_row), -np.inf)
    found = matches.candidate_gt >= 0
    score[position[matches.candidate_gt[found]]] = matches.score[matches.candidate[found]]
    return score


def _localisation_scores(
    matches: Matches, pairs: _ImagePairs, types: NDArray[np.uint8]
) -> FloatArray:
    """Return (G,) the highest score of the localisation errors on each box.

    A detection that found one box says nothing about the neighbour that it touches.
    """
    score = np.full(len(matches.gt_row), -np.inf)
    errors = pairs.same_class & (types[pairs.det] == LOCALISATION)
    np.maximum.at(score, pairs.gt[errors], matches.score[pairs.det[errors]])
    return score


def _wrong_classes(
    matches: Matches, pairs: _ImagePairs, types: NDArray[np.uint8]
) -> tuple[FloatArray, IntArray]:
    """Return (G,) score and label of the best class error on each box."""
    is_error = ~pairs.same_class & (pairs.iou >= 0.5) & (types[pairs.det] == WRONG_CLASS)
    errors = np.flatnonzero(is_error)
    det_score = matches.score[pairs.det[errors]]
    errors = errors[np.argsort(det_score, kind="stable")]  # the best is written last
    score, label = np.full(len(matches.gt_row), -np.inf), np.full(len(matches.gt_row), -1)
    score[pairs.gt[errors]] = matches.score[pairs.det[errors]]
    label[pairs.gt[errors]] = matches.det_class[pairs.det[errors]]
    return score, label
