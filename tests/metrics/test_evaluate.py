"""The evaluation against the authors' evaluator, pycocotools, and hand-worked numbers."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

from rfla.errors import MetricError
from rfla.metrics import Detections, GroundTruth, evaluate_boxes, find_protocol

CASES = ("d1_plain", "d3_odd_ids")
AP25 = 1  # place in the list of figures; the official value is always -1


def runs(folder, name):
    return json.loads((folder / f"{name}_expected.json").read_text())["runs"]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("run", range(4))
def test_figures_equal_the_official_ones(parity_dir, name, run):
    folder = parity_dir / "aitod_eval"
    expected = runs(folder, name)[run]
    lrp = "nolrp" not in expected["run"]
    metrics = evaluate_boxes(
        folder / f"{name}_gt.json.gz",
        folder / f"{name}_dt.json.gz",
        max_dets=expected["maxDets"],
        use_categories=expected["run"] != "nocats",
        lrp=lrp,
    )
    figures = list(metrics.figures.values())
    official = expected["stats"] if lrp else expected["stats"][:15]
    assert len(figures) == len(official)
    assert figures[AP25] >= figures[AP25 + 1]  # really computed: at least AP50
    figures[AP25] = official[AP25]
    np.testing.assert_allclose(figures, official, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_curves_and_classes_equal_the_official_ones(parity_dir, name):
    folder = parity_dir / "aitod_eval"
    expected = runs(folder, name)[0]
    metrics = evaluate_boxes(str(folder / f"{name}_gt.json.gz"), str(folder / f"{name}_dt.json.gz"))
    order = np.argsort(
        [row["category_id"] for row in metrics.per_class]
    )  # the records are sorted by category id
    curves, points = metrics.curves, expected["precision_points"]["values"]
    np.testing.assert_allclose(
        curves.recall[:10, order], expected["recall_all"]["values"], rtol=0, atol=1e-9
    )
    precision = curves.precision[[0, 5, 9]][:, ::10][:, :, order]
    np.testing.assert_allclose(precision, points, rtol=0, atol=1e-9)
    for i, field in enumerate(("olrp", "olrp_loc", "olrp_fp", "olrp_fn", "lrp_opt_thr")):
        official = np.array(expected["olrp_all"][field], np.float64).reshape(
            curves.lrp.shape[:3]
        )  # None becomes NaN
        np.testing.assert_allclose(curves.lrp[order][..., i], official, rtol=0, atol=1e-9)
    for k, row in zip(order, expected["per_class"], strict=True):
        ours = metrics.per_class[k]
        assert ours["ap"] == pytest.approx(-1 if row["AP"] is None else row["AP"], abs=1e-9)
        assert ours["threshold"] == pytest.approx(row["lrp_opt_thr"], abs=1e-9)


def one_image(boxes, labels=None, **more):
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.asarray(labels)
    names = more.pop("names", ("a",))
    return GroundTruth((1,), np.zeros(len(boxes), np.int64), boxes, labels, names=names, **more)


def found(boxes, scores, labels=None):
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.asarray(labels)
    return Detections(np.zeros(len(boxes), np.int64), boxes, np.asarray(scores, np.float64), labels)


def test_ap25_by_hand():
    """One box 0..10, found with IoU 30 / 100 = 0.3: AP25 = 1, all else 0."""
    metrics = evaluate_boxes(one_image([0, 0, 10, 10]), found([0, 0, 10, 3], [0.9]))
    assert (metrics.ap25, metrics.ap50, metrics.ap) == pytest.approx((1.0, 0.0, 0.0))
    assert (metrics.olrp, metrics.olrp_loc, metrics.olrp_fn) == (1.0, -1.0, 1.0)


def test_two_of_three_by_hand():
    """TP, FP, TP of three boxes at IoU 1: precision 1 up to recall 1/3, 2/3 up to 2/3, then 0."""
    gt = one_image([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]])
    dets = found([[0, 0, 10, 10], [70, 0, 80, 10], [20, 0, 30, 10]], [0.9, 0.8, 0.7])
    metrics = evaluate_boxes(gt, dets)
    assert metrics.ap50 == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)
    assert metrics.ar_1500 == pytest.approx(2 / 3)
    # LRP = (FP + FN) / (TP + FP + FN) = (0 + 2) / 3 with one detection, (1 + 1) / 4 with three
    assert (metrics.olrp, metrics.olrp_fp, metrics.olrp_fn) == pytest.approx((0.5, 1 / 3, 1 / 3))
    assert metrics.per_class[0]["threshold"] == 0.7


def test_figures_are_attributes_and_unknown_ones_are_named():
    metrics = evaluate_boxes(one_image([0, 0, 6, 6]), found([0, 0, 6, 6], [0.5]))
    assert metrics.ap_vt == pytest.approx(1.0)
    assert metrics.ap_m == -1.0
    with pytest.raises(AttributeError, match=r"ap_lt.*did you mean 'ap_t'"):
        _ = metrics.ap_lt
    assert json.loads(json.dumps(metrics.as_dict()))["ap"] == metrics.ap


def with_appended(folder, case):
    """The ground truth of a `dataset` record with more boxes and one more image."""
    gt = json.loads(gzip.decompress((folder / case["gt_file"]).read_bytes()))
    categories = [category["id"] for category in gt["categories"]]
    extra = [a | {"image_id": gt["images"][0]["id"]} for a in case["appended_annotations"]]
    extra.append({"image_id": 9999, "bbox": [1, 1, 5, 5], "area": None})
    for number, annotation in enumerate(extra):
        category = (
            categories[0]
            if annotation["image_id"] == 9999
            else categories[number % len(categories)]
        )
        gt["annotations"].append(annotation | {"id": 10**6 + number, "category_id": category})
    gt["images"].append({"id": 9999})
    return gt


@pytest.mark.parametrize("name", CASES)
def test_end_to_end_as_the_official_data_set(parity_dir, parity, name):
    """The authors' whole `AITODDataset.evaluate`, which tells three decimals."""
    case = next(case for case in parity("dataset")[0]["cases"] if case["id"] == name)
    results = parity_dir / case["gt_file"].replace("_gt", "_dt")
    figures = evaluate_boxes(with_appended(parity_dir, case), results).figures
    official = {"mAP": "ap", "mAP_50": "ap50", "mAP_75": "ap75"} | {
        f"mAP_{size}": f"ap_{size}" for size in ("vt", "t", "s", "m")
    }
    official |= {"oLRP": "olrp", "oLRP_Localisation": "olrp_loc", "oLRP_false_positive": "olrp_fp"}
    official["oLRP_false_negative"] = "olrp_fn"
    for theirs, ours in official.items():
        assert round(figures[ours], 3) == case["evaluate_with_lrp"][f"bbox_{theirs}"], theirs


def test_neither_torch_nor_the_schema_of_settings_is_loaded() -> None:
    """So that evaluation from Python starts as fast as pycocotools'."""
    code = "import sys, rfla.metrics; sys.exit(bool({'torch', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": [[0]]}, r"labels: one value for each box expected, not \(1, 1\)"),
        ({"crowd": [[1]]}, r"flags: one value for each box expected, not \(1, 1\)"),
        ({"boxes": [[1, 2, 3]]}, r"boxes are no \(M, 4\) numbers"),
        ({"boxes": "x"}, r"boxes are no \(M, 4\) numbers"),
        ({"boxes": None}, r"boxes are no \(M, 4\) numbers"),
        ({"image_index": None}, "image_index: one value for each box expected"),
    ],
)
def test_ground_truth_that_is_none(change, words):
    given = {"image_ids": (1,), "image_index": [0], "boxes": [[0, 0, 4, 4]], "labels": [0]}
    with pytest.raises(MetricError, match=words):
        GroundTruth(**(given | change), names=("a",))


@pytest.mark.parametrize("limits", [5, [float("nan")], ["5"], [1.5], [], [0, 10]])
def test_numbers_of_detections(limits):
    with pytest.raises(MetricError, match=r"max_dets .*: whole numbers from 1, at least one"):
        find_protocol("aitod", max_dets=limits)
