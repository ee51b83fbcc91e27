"""Optimal localisation recall precision error (oLRP; Oksuz et al., ECCV 2018).

It is computed as in the evaluator of AI-TOD.

LRP at a score threshold is (sum of (1 - IoU) / (1 - tau) over true positives + FP + FN) / (TP + FP
+ FN); oLRP is its smallest value over all score thresholds of a class.
"""

from typing import NamedTuple

import numpy as np

from rfla.metrics.arrays import FloatArray


class LrpPoint(NamedTuple):
    """The best operating point of one class: lower is better, all in 0..1.

    NaN where no true positive defines it.
    """

    olrp: float
    loc: float  # mean of 1 - IoU over true positives
    fp: float  # share of false positives among detections
    fn: float  # share of boxes not found
    threshold: float  # score at which LRP is smallest


NOTHING_FOUND = LrpPoint(1.0, np.nan, np.nan, 1.0, np.nan)


def optimal_lrp(
    found: FloatArray,
    total: FloatArray,
    overlap: FloatArray,
    scores: FloatArray,
    boxes: float,
    tau: float,
    first: tuple[float, float] | None,
) -> LrpPoint:
    """Find the smallest LRP.

    A false positive never lowers LRP, so only true positives need be looked at, and the very first
    detection, which wins a tie: LRP is 1 there as long as nothing is found.

    Args:
        found: (n,) true positives up to each true positive.
        total: (n,) detections that count up to each.
        overlap: (n,) IoU of each true positive.
        scores: (n,) their scores.
        boxes: number of true boxes that count.
        tau: IoU from which a detection is a true positive.
        first: (1 if a false positive else 0, score) of the very first detection; None where it is a
            true positive.
    """
    if not len(found) or found[-1] <= 0:
        return NOTHING_FOUND
    false, missed = total - found, boxes - found
    weight = np.diff(found, prepend=0.0)
    error = found - np.cumsum(overlap * weight)  # sum of 1 - IoU
    lrp = (error / (1 - tau) + false + missed) / (found + false + missed)
    lrp[found <= 0] = np.inf  # true positives of images that were not drawn
    best = int(np.argmin(lrp))
    if first is not None and lrp[best] >= 1.0:
        return NOTHING_FOUND._replace(fp=1.0 if first[0] else np.nan, threshold=first[1])
    return LrpPoint(
        float(lrp[best]),
        float(error[best] / found[best]),
        float(false[best] / total[best]),
        float(missed[best] / boxes),
        float(scores[best]),
    )
