"""Error types, calibration, confusion and size curves on scenes small enough to count by hand."""

import json

import numpy as np
import pytest

from rfla.metrics import Detections, GroundTruth, find_protocol
from rfla.metrics.analysis import calibrate, study
from rfla.metrics.error_types import TYPES
from rfla.metrics.html_report import write_report

FAR = [500, 500, 508, 508]


def scene():
    """Class 0 at x = 0, 100, 200; class 1 at x = 300; a crowd of class 0 at x = 400.

    All 10 px wide and high.
    """
    boxes = [[x, 0, x + 10, 10] for x in (0, 100, 200, 300, 400)]
    gt = GroundTruth(
        image_ids=(1,),
        image_index=np.zeros(5, np.int64),
        boxes=np.array(boxes, np.float64),
        labels=np.array([0, 0, 0, 1, 0]),
        crowd=np.array([False, False, False, False, True]),
        names=("car", "ship"),
    )
    detections = [
        ([0, 0, 10, 10], 0.9, 0, "correct"),
        ([0, 0, 10, 9], 0.8, 0, "duplicate"),
        ([100, 0, 110, 3], 0.7, 0, "localisation"),  # IoU 0.3
        ([300, 0, 310, 10], 0.6, 0, "class"),
        ([402, 2, 408, 8], 0.5, 0, "ignored"),
        (FAR, 0.4, 0, "background"),
        ([300, 0, 310, 8], 0.3, 1, "correct"),
    ]
    box, score, label, kinds = zip(*detections, strict=True)
    found = Detections(
        np.zeros(7, np.int64), np.array(box, np.float64), np.array(score), np.array(label)
    )
    return gt, found, kinds


def test_kind_of_each_detection():
    gt, found, kinds = scene()
    errors = study(gt, found, find_protocol("aitod")).errors
    told = {int(row): TYPES[kind] for row, kind in zip(errors.det_row, errors.type, strict=True)}
    assert tuple(told[row] for row in range(7)) == kinds


def test_scores_that_decide_the_fate_of_each_box():
    gt, found, _ = scene()
    errors = study(gt, found, find_protocol("aitod")).errors
    order = np.argsort(errors.gt_row)
    nothing = -np.inf
    np.testing.assert_array_equal(errors.counted[order], [True, True, True, True, False])
    np.testing.assert_array_equal(errors.found_score[order][:4], [0.9, nothing, nothing, 0.3])
    np.testing.assert_array_equal(
        errors.localisation_score[order][:4], [nothing, 0.7, nothing, nothing]
    )
    np.testing.assert_array_equal(
        errors.wrong_class_score[order][:4], [nothing, nothing, nothing, 0.6]
    )


def test_counts_at_the_optimal_scores():
    """oLRP is best at 0.9 for cars (one of three found, no error) and at 0.3 for ships (found)."""
    gt, found, _ = scene()
    analysis = study(gt, found, find_protocol("aitod")).analysis
    assert analysis.thresholds == [0.9, 0.3]
    tiny = analysis.sizes.index("t")  # all true boxes; the ship found at 8 px high as well
    assert {kind: counts[tiny] for kind, counts in analysis.detection_kinds.items()} == {
        "correct": 2,
        "duplicate": 0,
        "class": 0,
        "localisation": 0,
        "background": 0,
    }
    assert {fate: counts[tiny] for fate, counts in analysis.box_fates.items()} == {
        "found": 2,
        "badly placed": 0,
        "taken for another class": 0,
        "not seen": 2,
    }
    assert analysis.confusion == [[1, 0, 2], [0, 1, 0], [0, 0, 0]]


def test_confusion_between_classes():
    """A ship found as a car only; the car it was taken for counts in the ship's row."""
    gt = GroundTruth((1,), [0, 0], [[0, 0, 10, 10], [50, 0, 60, 10]], [0, 1], names=("car", "ship"))
    found = Detections([0, 0], [[0, 0, 10, 10], [50, 0, 60, 10]], [0.4, 0.9], [0, 0])
    assert study(gt, found, find_protocol("aitod")).analysis.confusion == [
        [1, 0, 0],
        [1, 0, 0],
        [0, 0, 0],
    ]


def test_size_curve_sees_each_size_by_itself():
    """Boxes of 4 and 16 px, the large ones found: recall 0 round 4 px, 1 round 16 px."""
    gt = GroundTruth((1,), [0, 0], [[0, 0, 4, 4], [50, 0, 66, 16]], [0, 0], names=("car",))
    found = Detections([0], [[50, 0, 66, 16]], [0.9], [0])
    curve = study(gt, found, find_protocol("aitod")).analysis.by_size
    told = dict(zip(curve.size, curve.recall, strict=True))
    assert told[4.0] == 0.0
    assert told[16.0] == 1.0
    assert 8.0 not in told
    assert curve.ap[curve.size.index(16.0)] == pytest.approx(1.0)


def test_recall_by_size_is_that_of_all_boxes():
    """Of class a one of two boxes is found, of class b the only one: 2 of 3, and not 3 / 4."""
    boxes = [[0, 0, 8, 8], [20, 0, 28, 8], [40, 0, 48, 8]]
    gt = GroundTruth((1,), [0, 0, 0], boxes, [0, 0, 1], names=("a", "b"))
    found = Detections([0, 0], [boxes[0], boxes[2]], [0.9, 0.8], [0, 1])
    curve = study(gt, found, find_protocol("aitod")).analysis.by_size
    assert set(curve.boxes) == {3}
    assert curve.recall == [pytest.approx(2 / 3)] * len(curve.boxes)


@pytest.mark.parametrize(("low", "high"), [(0.9, 1.0), (3.0, 700.0), (2.0, 5e6)])
def test_every_size_from_1_to_1024_px_has_a_window(low, high):
    """However small or large the boxes are, they are in the curve, and its length is bounded."""
    sides = np.array([low, high])
    boxes = np.concatenate([np.zeros((2, 2)), sides[:, None].repeat(2, axis=1)], axis=1)
    gt = GroundTruth((1,), [0, 0], boxes, [0, 0], names=("car",))
    curve = study(gt, Detections([], [], [], []), find_protocol("aitod")).analysis.by_size
    assert curve.size[0] / 2**0.25 <= low <= curve.size[0] * 2**0.25
    assert len(curve.size) <= 41
    if high < 1024:
        assert curve.size[-1] / 2**0.25 <= high <= curve.size[-1] * 2**0.25


def test_a_found_neighbour_makes_no_box_badly_placed():
    """Two boxes with IoU 0.33.

    The one found says nothing of the other, which nothing was placed for.
    """
    gt = GroundTruth((1,), [0, 0], [[0, 0, 10, 10], [5, 0, 15, 10]], [0, 0], names=("car",))
    found = Detections([0], [[0, 0, 10, 10]], [0.9], [0])
    fates = study(gt, found, find_protocol("aitod")).analysis.box_fates
    assert {name: sum(counts) for name, counts in fates.items() if sum(counts)} == {
        "found": 1,
        "not seen": 1,
    }


def test_a_class_error_below_the_score_of_its_class_takes_no_box():
    """The best threshold of ships is 0.9: a ship of 0.2 on a car does not count."""
    gt = GroundTruth((1,), [0, 0], [[0, 0, 10, 10], [50, 0, 60, 10]], [0, 1], names=("car", "ship"))
    for score, fate in ((0.2, "not seen"), (0.95, "taken for another class")):
        boxes = [[0, 0, 10, 10], [50, 0, 60, 10], [70, 0, 80, 10]]
        found = Detections([0, 0, 0], boxes, [score, 0.9, 0.3], [1, 1, 1])
        analysis = study(gt, found, find_protocol("aitod")).analysis
        assert analysis.thresholds == [None, 0.9]
        assert analysis.box_fates[fate][1] == 1, (score, analysis.box_fates)


def test_confusion_counts_all_classes_of_an_image_together():
    """The limit of detections is one for each class: three classes at a limit of one all count."""
    boxes = [[x, 0, x + 10, 10] for x in (0, 50, 100)]
    gt = GroundTruth((1,), [0, 0, 0], boxes, [0, 1, 2], names=("a", "b", "c"))
    found = Detections([0, 0, 0], boxes, [0.9, 0.8, 0.7], [0, 1, 2])
    analysis = study(gt, found, find_protocol("coco", max_dets=[1])).analysis
    assert np.trace(np.array(analysis.confusion)) == 3


def test_scores_that_are_no_probabilities_are_judged_but_not_calibrated(tmp_path):
    """Logits: the figures of their probabilities, no calibration, and a report that opens."""
    gt, found, _ = scene()
    logits = np.log(found.scores / (1 - found.scores))
    result = study(
        gt, Detections(found.image_index, found.boxes, logits, found.labels), find_protocol("aitod")
    )
    assert result.metrics.ap == study(gt, found, find_protocol("aitod")).metrics.ap
    assert result.analysis.calibration.count == []
    assert result.analysis.thresholds == pytest.approx([logits[0], logits[6]])
    write_report(tmp_path, result)
    assert not (tmp_path / "calibration.png").exists()


def test_calibration_by_hand():
    gt, found, _ = scene()
    errors = study(gt, found, find_protocol("aitod")).errors
    result = calibrate(found.scores[errors.det_row], errors)
    np.testing.assert_allclose(
        result.score, [0.3, 0.4, 0.6, 0.7, 0.8, 0.9]
    )  # 0.5 lies on the crowd
    assert result.precision == [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    assert result.error == pytest.approx((0.7 + 0.4 + 0.6 + 0.7 + 0.8 + 0.1) / 6)


@pytest.mark.parametrize("empty", ["detections", "truth", "both"])
def test_nothing_to_analyse(empty):
    gt, found, _ = scene()
    if empty != "detections":
        gt = GroundTruth((1,), [], [], [], names=gt.names)
    if empty != "truth":
        found = Detections([], [], [], [])
    analysis = study(gt, found, find_protocol("aitod")).analysis
    assert json.dumps(analysis.as_dict())
    assert sum(map(sum, analysis.confusion)) == (4 if empty == "detections" else 0)
