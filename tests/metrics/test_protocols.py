"""Size ranges, ignored boxes and regions of each protocol, by hand."""

import io
import re
from itertools import product

import numpy as np
import pytest
from rich.console import Console

from rfla.errors import MetricError
from rfla.metrics import (
    PROTOCOLS,
    REGION,
    Detections,
    GroundTruth,
    Protocol,
    evaluate_boxes,
    find_protocol,
)
from rfla.metrics.regions import covered_share, inside_regions
from rfla.names import metric_label


def truth(boxes, labels=None, **more):
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.asarray(labels)
    names = more.pop("names", ("a", "b"))
    flags = {name: np.asarray(value, np.bool_) for name, value in more.items()}
    return GroundTruth((1,), np.zeros(len(boxes), np.int64), boxes, labels, names=names, **flags)


def found(boxes, scores, labels=None):
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.asarray(labels)
    return Detections(np.zeros(len(boxes), np.int64), boxes, np.asarray(scores, np.float64), labels)


TARGET = [0, 0, 10, 10]
CORNER = [100, 100, 110, 110]  # a false positive, unless ignored
BEFORE = {"ap50": pytest.approx(1.0)}


@pytest.mark.parametrize(
    ("protocol", "figures"),
    [
        (
            "aitod",
            "ap ap25 ap50 ap75 ap_vt ap_t ap_s ap_m ar_100 ar_300 ar_1500 ar_vt ar_t ar_s ar_m",
        ),
        ("coco", "ap ap25 ap50 ap75 ap_s ap_m ap_l ar_1 ar_10 ar_100 ar_s ar_m ar_l"),
        (
            "soda",
            "ap ap25 ap50 ap75 ap_small ap_es ap_rs ap_gs ap_n "
            "ar_100 ar_300 ar_1500 ar_small ar_es ar_rs ar_gs ar_n",
        ),
        (
            "visdrone",
            "ap ap25 ap50 ap75 ap_vt ap_t ap_s ap_m ar_1 ar_10 ar_100 ar_500 ar_vt ar_t ar_s ar_m",
        ),
    ],
)
def test_figures_of_each_protocol(protocol, figures):
    metrics = evaluate_boxes(truth([TARGET]), found([TARGET], [0.5]), protocol)
    assert list(metrics.figures) == [*figures.split(), "olrp", "olrp_loc", "olrp_fp", "olrp_fn"]


def test_tables_show_every_figure():
    """TinyPerson is told by size at each IoU; whatever is a figure can be read on a terminal."""
    for protocol, width in product(PROTOCOLS, (40, 80, 120)):
        metrics = evaluate_boxes(truth([TARGET]), found([TARGET], [0.5]), protocol)
        console = Console(width=width, file=io.StringIO())
        console.print(metrics.table())
        cells = re.findall(
            r"\S+ (?:\d\.\d{3}|-)(?= |$)", console.file.getvalue().split("by class")[0], re.M
        )
        assert len(cells) == len(metrics.figures), protocol
    for narrow in range(1, 40):  # something is cut off there, and nothing fails
        Console(width=narrow, file=io.StringIO()).print(metrics.table())


def test_names_as_people_write_them():
    names = ("ap", "ap50", "ap_vt", "ap50_tiny1", "ar_1500", "olrp", "olrp_loc")
    written = ["AP", "AP50", "APvt", "AP50tiny1", "AR1500", "oLRP", "oLRP loc"]
    assert [metric_label(name) for name in names] == written


def test_ignored_box_by_protocol():
    """A better detection on an ignored box: AI-TOD counts the box, as its evaluator does."""
    gt = truth([TARGET, CORNER], ignore=[False, True])
    dets = found([CORNER, TARGET], [0.9, 0.8])
    assert evaluate_boxes(gt, dets, "aitod").per_class[0]["boxes"] == 2
    for protocol in ("visdrone", "tinyperson"):
        metrics = evaluate_boxes(gt, dets, protocol)
        assert metrics.per_class[0]["boxes"] == 1
        assert metrics.ap50 == pytest.approx(1.0)


def test_crowd_takes_any_number_and_counts_nothing():
    """Three detections inside a crowd box of 40 px: IoU is tiny, their own area lies inside it."""
    gt = truth([TARGET, [80, 80, 120, 120]], crowd=[False, True])
    dets = found([CORNER, [90, 90, 100, 100], [81, 81, 91, 91], TARGET], [0.9, 0.8, 0.7, 0.6])
    for protocol in PROTOCOLS:
        assert evaluate_boxes(gt, dets, protocol).ap50 == pytest.approx(1.0), protocol


def test_tinyperson_swallows_what_lies_inside_an_ignored_box_of_the_range():
    """A detection inside an ignored giant is ignored by IoD.

    One inside a box that only its size ignores as well.
    """
    gt = truth([TARGET, [80, 80, 160, 160]], ignore=[False, True])
    dets = found([CORNER, TARGET], [0.9, 0.8])
    assert evaluate_boxes(gt, dets, "tinyperson").ap50 == pytest.approx(1.0)
    assert evaluate_boxes(gt, dets, "aitod").ap50 < 0.6
    large = truth([TARGET, [80, 80, 160, 160]])
    metrics = evaluate_boxes(large, dets, "tinyperson")
    assert metrics.ap50_tiny == pytest.approx(1.0)
    assert metrics.ap50 < 1.0


@pytest.mark.parametrize("stored", ["one without class", "once a class"])
def test_visdrone_drops_what_lies_in_a_region(stored):
    """Boxes and detections of every class with half their area in a region are out.

    40 percent is not enough.
    """
    region, half, less = [100, 0, 200, 50], [100, 45, 110, 55], [120, 46, 130, 56]
    if stored == "one without class":
        gt = truth([TARGET, region, half], [0, REGION, 0])
    else:
        gt = truth(
            [TARGET, region, region, half],
            [0, 0, 1, 0],
            crowd=[False, True, True, False],
            ignore=[False, True, True, False],
        )
    dets = found([half, less, [150, 10, 160, 20], TARGET], [0.9, 0.8, 0.7, 0.6], [0, 1, 1, 0])
    metrics = evaluate_boxes(gt, dets, "visdrone")
    assert metrics.per_class[0]["boxes"] == 1
    assert metrics.per_class[0]["ap50"] == pytest.approx(1.0)
    only_less = evaluate_boxes(
        truth([TARGET, [300, 0, 310, 10], region], [0, 1, REGION]), dets, "visdrone"
    )
    # of class b, `less` stays as the only false positive: oLRP has no true positive to go by
    assert only_less.per_class[1]["olrp"] == 1.0


@pytest.mark.parametrize(("label", "dropped"), [(0, [True, False]), (REGION, [True, True])])
def test_a_region_of_one_class_drops_that_class_alone(label, dropped):
    """The same box of class a and of class b in a region of class a, and of none."""
    gt = truth([[0, 0, 9, 9]], [label], crowd=[True], ignore=[True])
    boxes = np.array([[1.0, 1, 4, 4]] * 2)
    assert inside_regions(gt, np.array([0, 0]), boxes, np.array([0, 1])).tolist() == dropped


def test_covered_share_counts_overlapping_regions_once():
    regions = np.array([[0, 0, 10, 10], [5, 0, 15, 10]], np.float64)
    boxes = np.array([[0, 0, 20, 10], [0, 0, 10, 20], [15, 0, 20, 10], [3, 3, 3, 9]], np.float64)
    np.testing.assert_allclose(covered_share(boxes, regions), [0.75, 0.5, 0, 0])


def test_regions_that_cross_touch_and_repeat_are_marked_as_cell_by_cell(monkeypatch):
    rng = np.random.default_rng(3)
    corner, size = rng.integers(0, 20, (30, 2)), rng.integers(0, 9, (30, 2))
    regions = np.concatenate([corner, corner + size], axis=1).astype(np.float64)
    pixels = np.zeros((32, 32))
    for x1, y1, x2, y2 in regions.astype(int):
        pixels[y1:y2, x1:x2] = 1
    low = rng.integers(0, 20, (50, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 12, (50, 2))], axis=1)
    shares = [pixels[y1:y2, x1:x2].mean() for x1, y1, x2, y2 in boxes]
    np.testing.assert_allclose(covered_share(boxes.astype(np.float64), regions), shares)
    assert not covered_share(boxes.astype(np.float64), regions[:0]).any()
    monkeypatch.setattr("rfla.metrics.regions.FEW", 5)  # as where there are very many
    np.testing.assert_allclose(covered_share(boxes.astype(np.float64), regions), shares)


@pytest.mark.parametrize(
    ("name", "ranges"),
    [
        (
            "tinyperson",
            {
                "all": (1, 1e10),
                "tiny": (1, 400),
                "tiny1": (1, 64),
                "tiny2": (64, 144),
                "tiny3": (144, 400),
                "small": (400, 1024),
                "reasonable": (1024, 1e10),
            },
        ),
        (
            "soda",
            {
                "all": (0, 1e10),
                "small": (0, 1024),
                "es": (0, 144),
                "rs": (144, 400),
                "gs": (400, 1024),
                "n": (1024, pytest.approx(2000)),
            },
        ),
    ],
)
def test_areas_of_each_size(name, ranges):
    """px², as their evaluators have them."""
    protocol = find_protocol(name)
    assert dict(zip(protocol.size_names, protocol.area_ranges, strict=True)) == ranges


def test_own_sizes_are_told_by_name():
    gt = truth([[0, 0, 3, 3], [20, 20, 32, 32]])
    metrics = evaluate_boxes(
        gt, found([[0, 0, 3, 3]], [0.5]), sizes={"needle": [0, 4], "rest": [4, None]}
    )
    assert metrics.ap_needle == pytest.approx(1.0)
    assert metrics.ap_rest == 0.0
    assert "ap_vt" not in metrics.figures


@pytest.mark.parametrize(
    ("protocol", "more", "message"),
    [
        ("aitodd", {}, "unknown protocol 'aitodd'.*did you mean 'aitod'"),
        ("aitod", {"sizes": {"vt": [8, 8]}}, r"sizes: vt: \[8, 8\] must have 0 <= low < high"),
        (
            "aitod",
            {"sizes": {"vt": [10**30, 10**5000]}},
            r"\[a huge number, .*\] must have .* below 100,000",
        ),
        ("aitod", {"sizes": {"vt": [8]}}, r"sizes: vt: \[8\] must be \[low, high\]"),
        ("aitod", {"sizes": {"vt": ["a", "b"]}}, "sizes: vt"),
        ("aitod", {"sizes": {"all": [0, 8]}}, "sizes: 'all' cannot name"),
        ("aitod", {"max_dets": []}, "max_dets"),
        ("aitod", {"max_dets": [0, 10]}, "max_dets"),
    ],
)
def test_senseless_rules_are_refused_in_one_line(protocol, more, message):
    with pytest.raises(MetricError, match=message) as error:
        find_protocol(protocol, **more)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"ious": ()}, r"protocol own: ious \[0.25\] must be between 0 and 1"),
        ({"ious": (0.0, 0.5)}, "must be between 0 and 1"),
        ({"ious": (1.0,)}, "must be between 0 and 1"),
        ({"ious": tuple(i / 100 for i in range(1, 66))}, "65 IoU thresholds; at most 64"),
        ({"max_dets": ()}, r"max_dets \[\] must be numbers from 1 on that rise"),
        ({"max_dets": (1500, 100)}, r"max_dets \[1500, 100\] must"),
    ],
)
def test_senseless_protocols_are_refused(rules, message):
    with pytest.raises(MetricError, match=message):
        Protocol("own", **rules)


def test_as_many_thresholds_as_there_are_bits():
    many = Protocol("own", ious=tuple(i / 65 for i in range(1, 65)), extra_ious=())
    assert evaluate_boxes(truth([TARGET]), found([TARGET], [0.5]), many).ap == pytest.approx(1.0)


def test_an_upper_end_beyond_all_floats_is_the_open_end():
    assert find_protocol("aitod", {"vt": [0, 10**400]}).area_ranges[1] == (0.0, 1e10)
