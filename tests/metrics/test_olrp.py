"""oLRP against its definition, written out over the matches of pycocotools, on random scenes."""

import contextlib
import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rfla.metrics import Detections, GroundTruth, find_protocol
from rfla.metrics.accumulate import ABSENT, accumulate
from rfla.metrics.detection_files import to_coco
from rfla.metrics.matches import match_detections
from rfla.metrics.olrp import NOTHING_FOUND, optimal_lrp
from rfla.metrics.reference import gt_to_coco

NOTHING = (
    1.0,
    np.nan,
    np.nan,
    1.0,
    np.nan,
)  # oLRP, Loc, FP, FN, threshold of a class that finds nothing


def scene(seed, boxes, dets, crowd):
    """Two classes in three images, boxes on whole px, few different scores."""
    rng = np.random.default_rng(seed)
    corner, sides = rng.integers(0, 60, (boxes, 2)), rng.integers(1, 40, (boxes, 2))
    truth = np.concatenate([corner, corner + sides], axis=1).astype(np.float64)
    image, labels = rng.integers(0, 3, boxes), rng.integers(0, 2, boxes)
    gt = GroundTruth(
        (2, 1, 3), image, truth, labels, crowd=rng.random(boxes) < crowd, names=("a", "b")
    )
    source = rng.integers(0, boxes, dets)
    moved = truth[source] + rng.integers(-3, 4, (dets, 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    scores = rng.integers(1, 9, dets) / 9
    return gt, Detections(
        image[source], moved, scores, np.where(rng.random(dets) < 0.9, labels[source], 0)
    )


def evaluation_of(gt, found, protocol):
    """Match at IoU 0.5 with pycocotools; its `ious` are kept."""
    with contextlib.redirect_stdout(io.StringIO()):
        truths = COCO()
        truths.dataset = gt_to_coco(gt)
        truths.createIndex()
        evaluation = COCOeval(truths, truths.loadRes(to_coco(found, gt)), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.params.areaRng = [list(bounds) for bounds in protocol.area_ranges]
        evaluation.params.maxDets = [max(protocol.max_dets)]
        evaluation.evaluate()
    return evaluation


def lrp_by_definition(evaluation, category, area, limit):
    """Smallest (sum of (1 - IoU) / 0.5 + FP + FN) / (TP + FP + FN) over all list lengths."""
    rows, count = [], 0
    for one in evaluation.evalImgs:
        if one is None or one["category_id"] != category or one["aRng"] != area:
            continue
        count += int(np.sum(~np.asarray(one["gtIgnore"], bool)))
        ious = evaluation.ious[one["image_id"], category]  # (D, G) in the order of the file's boxes
        ids = [gt["id"] for gt in evaluation._gts[one["image_id"], category]]
        for place, score in enumerate(one["dtScores"][:limit]):
            match = int(one["dtMatches"][0, place])
            iou = ious[place, ids.index(match)] if match else 0.0
            rows.append((-score, len(rows), bool(match), bool(one["dtIgnore"][0, place]), iou))
    if not count:
        return (ABSENT,) * 5
    best = NOTHING
    true = false = overlap = 0.0
    lowest = np.inf
    hits = any(match and not ignored for _, _, match, ignored, _ in rows)
    for negative, _, match, ignored, iou in sorted(rows):
        true += match and not ignored
        false += not match and not ignored
        overlap += iou if match and not ignored else 0.0
        lrp = ((true - overlap) / 0.5 + false + count - true) / (true + false + count - true)
        if hits and lrp < lowest - 1e-12:  # the surest of equals
            lowest = lrp
            loc = (true - overlap) / true if true else np.nan
            fp = false / (true + false) if true + false else np.nan
            best = (lrp, loc, fp, (count - true) / count, -negative)
    return best


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    boxes=st.sampled_from([1, 4, 30]),
    dets=st.sampled_from([1, 10, 60]),
    crowd=st.sampled_from([0.0, 0.3, 1.0]),
    max_dets=st.sampled_from([(1, 3, 100), (2,), (100, 300, 1500)]),
)
def test_olrp_is_the_smallest_error_of_all(seed, boxes, dets, crowd, max_dets):
    gt, found = scene(seed, boxes, dets, crowd)
    protocol = find_protocol("aitod", max_dets=max_dets)
    ours = accumulate(match_detections(gt, found, protocol)).lrp  # (K, A, M, 5)
    evaluation = evaluation_of(gt, found, protocol)
    for label, category in enumerate(gt.category_ids):
        for a, area in enumerate(evaluation.params.areaRng):
            for m, limit in enumerate(protocol.max_dets):
                expected = lrp_by_definition(evaluation, category, area, limit)
                np.testing.assert_allclose(
                    ours[label, a, m], expected, rtol=0, atol=1e-9, err_msg=f"{label} {a} {m}"
                )


def one_match(found, total, overlap, score):
    """Arrays of a single true positive."""
    return [np.array([value]) for value in (found, total, overlap, score)]


def test_nothing_is_found_where_no_image_with_a_true_positive_was_drawn():
    """The only true positive weighs 0; two boxes are missed."""
    assert optimal_lrp(*one_match(0.0, 1.0, 0.8, 0.9), 2, 0.5, None) == NOTHING_FOUND


def test_the_first_detection_wins_a_tie():
    """LRP is 1 at the false positive of 0.9, and (0.5 / 0.5 + 1) / 2 at the IoU of 0.5 after it."""
    found = optimal_lrp(*one_match(1.0, 2.0, 0.5, 0.7), 1, 0.5, (1.0, 0.9))
    assert found == NOTHING_FOUND._replace(fp=1.0, threshold=0.9)
