"""What became of every detection and every true box at IoU 0.5: found, missed, and the kinds of error.

Detections take boxes in order of score, so what becomes of one does not depend on less sure ones.
All of this holds for any score threshold; only "missed" needs one, and is told by the score of the
detection that found the box.

Shapes: D detections (the surest of each image and class, as the protocol limits), G true boxes, P
pairs.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rfla.metrics.arrays import BoolArray, Detections, FloatArray, GroundTruth, IntArray
from rfla.metrics.evidence import Evidence
from rfla.metrics.matching import MATCHED, MATCHED_IGNORED
from rfla.metrics.pairs import Side, find_pairs

NEAR = 0.1
"""IoU from which a detection is about a box though it misses it: a localisation error, as in TIDE (ECCV 2020)."""

CORRECT, IGNORED, DUPLICATE, WRONG_CLASS, LOCALISATION, BACKGROUND = range(6)
KINDS = ("correct", "ignored", "duplicate", "class", "localisation", "background")
"""Kinds of detections: a duplicate overlaps a box that a surer one took.

Class: IoU 0.5 with a box of another class.
"""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """One row for each detection and each true box."""

    det_row: IntArray  # (D,) row in Detections
    kind: NDArray[np.uint8]  # (D,) index in KINDS
    iou: FloatArray  # (D,) with the box it is correct about, 0 otherwise
    gt_row: IntArray  # (G,) row in GroundTruth
    asked: BoolArray  # (G,) the box counts: neither crowd nor ignored nor out of all ranges
    found_at: FloatArray  # (G,) score of the detection that found it; -inf none
    near_at: (
        FloatArray  # (G,) score of the surest localisation error of its class about it; -inf none
    )
    mistaken_at: FloatArray  # (G,) score of the surest class error on it; -inf none
    mistaken_as: IntArray  # (G,) label of that class error; -1 none


class _Near(NamedTuple):
    """Pairs of one image regardless of class."""

    det: IntArray  # (P,) position among the D
    gt: IntArray  # (P,) position among the G
    iou: FloatArray  # (P,)
    same: BoolArray  # (P,) same class


def find_outcomes(gt: GroundTruth, detections: Detections, evidence: Evidence) -> Outcomes:
    """Tell what became of everything, from evidence gathered with categories."""
    at = evidence.protocol.threshold_index(0.5) or 0
    pairs = _near_pairs(gt, detections, evidence)
    state = np.zeros(len(evidence.det_row), np.uint8)
    state[evidence.candidate] = evidence.state[:, at, 0]
    iou = np.zeros(len(state))
    iou[evidence.candidate] = np.where(
        evidence.state[:, at, 0] == MATCHED, evidence.overlap[:, 0], 0.0
    )
    ignored = (state == MATCHED_IGNORED) | ((state == 0) & ~evidence.in_range[:, 0])
    touches = _touched(len(state), pairs)
    kind = np.select(
        [state == MATCHED, ignored, touches["taken"], touches["other"], touches["near"]],
        [CORRECT, IGNORED, DUPLICATE, WRONG_CLASS, LOCALISATION],
        BACKGROUND,
    ).astype(np.uint8)
    scores = _scores(gt, evidence, pairs, kind)
    return Outcomes(
        evidence.det_row, kind, iou, evidence.gt_row, ~evidence.gt_ignored[:, 0], *scores
    )


def _near_pairs(gt: GroundTruth, detections: Detections, evidence: Evidence) -> _Near:
    """Find all pairs with IoU of NEAR or more within an image."""
    assert gt.sides is not None and detections.sides is not None
    order, gt_order = (
        np.argsort(evidence.det_image, kind="stable"),
        np.argsort(evidence.gt_image, kind="stable"),
    )
    rows, gt_rows = evidence.det_row[order], evidence.gt_row[gt_order]
    dets = Side(evidence.det_image[order], detections.boxes[rows, :2], detections.sides[rows])
    truths = Side(evidence.gt_image[gt_order], gt.boxes[gt_rows, :2], gt.sides[gt_rows])
    found = list(find_pairs(dets, truths, np.zeros(len(gt_rows), np.bool_), NEAR))
    if not found:
        nothing = np.zeros(0, np.int64)
        return _Near(nothing, nothing, np.zeros(0), np.zeros(0, np.bool_))
    det = order[np.concatenate([p.det for p in found])]
    true = gt_order[np.concatenate([p.gt for p in found])]
    same = evidence.det_class[det] == evidence.gt_class[true]
    return _Near(det, true, np.concatenate([p.overlap for p in found]), same)


def _touched(count: int, pairs: _Near) -> dict[str, BoolArray]:
    """Return (D,) flags: overlaps a box of its class, of another class, or lies near one of its class."""
    rules = {
        "taken": pairs.same & (pairs.iou >= 0.5),
        "other": ~pairs.same & (pairs.iou >= 0.5),
        "near": pairs.same,
    }
    return {name: np.bincount(pairs.det[rule], minlength=count) > 0 for name, rule in rules.items()}


def _scores(
    gt: GroundTruth, evidence: Evidence, pairs: _Near, kind: NDArray[np.uint8]
) -> tuple[FloatArray, FloatArray, FloatArray, IntArray]:
    """Return (G,) found_at, near_at, mistaken_at and mistaken_as.

    A detection that found one box says nothing about the neighbour that it touches: only errors
    count for the last three.
    """
    count = len(evidence.gt_row)
    found, near, mistaken = (np.full(count, -np.inf) for _ in range(3))
    position = np.full(len(gt.labels), -1)
    position[evidence.gt_row] = np.arange(count)
    taken = evidence.candidate_gt >= 0
    found[position[evidence.candidate_gt[taken]]] = evidence.score[evidence.candidate[taken]]
    score = evidence.score[pairs.det]
    is_near = pairs.same & (kind[pairs.det] == LOCALISATION)
    is_other = ~pairs.same & (pairs.iou >= 0.5) & (kind[pairs.det] == WRONG_CLASS)
    np.maximum.at(near, pairs.gt[is_near], score[is_near])
    others = np.flatnonzero(is_other)[
        np.argsort(score[is_other], kind="stable")
    ]  # the surest is written last
    mistaken[pairs.gt[others]] = score[others]
    mistaken_as = np.full(count, -1)
    mistaken_as[pairs.gt[others]] = evidence.det_class[pairs.det[others]]
    return found, near, mistaken, mistaken_as
