"""The report page: what it holds; how it behaves in a browser, test_report_in_browser.py says."""

import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from rfla.errors import MetricError
from rfla.metrics import REGION, Detections, GroundTruth, find_protocol
from rfla.metrics.analysis import study
from rfla.metrics.compare import compare
from rfla.metrics.html_report import choose_images, image_counts, write_report

NASTY = "</script><b>&.png"


def page_data(text):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S).group(1)
    )


def test_files_of_a_report(report):
    names = {path.name for path in report.parent.iterdir()}
    figures = ("pr_by_iou", "pr_by_size", "by_size", "errors", "calibration", "confusion")
    assert names == {"report.html", "results.json", *(f"{figure}.png" for figure in figures)}
    told = json.loads((report.parent / "results.json").read_text())
    assert told["metrics"]["ap50"] == pytest.approx(
        told["metrics"]["per_class"][0]["ap50"] / 2 + 0.5, abs=0.3
    )
    assert told["analysis"]["by_size"]["size"]
    assert told["speed_ms"] == {"nms": 1.5432}


def test_page_needs_no_network_and_survives_hostile_names(report):
    text = report.read_text()
    assert not re.search(r"https?://|//[a-z]+\.|@import|<link (?!rel=\"icon\" href=\"data:)", text)
    assert "default-src 'none'" in text
    assert NASTY not in text
    assert "<title>A &lt;run&gt;</title>" in text
    data = page_data(text)
    assert data["images"][0]["name"] == NASTY
    assert data["names"] == ["a<b>", "b"]


def test_words_of_the_page(report, make_study, tmp_path, no_figures):
    """A score of six digits in two, times in one decimal, and one image is no plural."""
    data = page_data(report.read_text())
    assert data["shown"].startswith("All 4 images. Found, missed and false positives are ")
    assert data["shown"].endswith("a score below 0.05 are left out.")
    assert data["speed"] == [{"stage": "nms", "ms per image": 1.5}]
    weak = make_study(images=1)
    weak.analysis.thresholds[0] = 0.0197754
    shown = page_data(write_report(tmp_path, weak).read_text())["shown"]
    assert shown.startswith("One image; ") and "below 0.02 are" in shown


def test_rows_of_the_page(report):
    data = page_data(report.read_text())
    image = data["images"][2]  # misses two, of class a and b
    assert (image["w"], image["h"], image["p"]) == (200, 200, "p2")
    assert [gt[4] for gt in image["g"]] == [0, 0, 0, 1, 1, 1]
    assert [gt[6] is None for gt in image["g"]] == [True, False, False, True, False, False]
    assert [data["kinds"][det[6]] for det in image["d"]].count("background") == 2
    assert image["g"][0][:6] == [5.0, 5.0, 11.0, 11.0, 0, 6.0]


def noisy_study(seed=0, images=5, boxes=400, dets=900):
    """Scores with all their digits: the optimal score of a class is that of a detection."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 300, (boxes, 2))
    truth = np.concatenate([corner, corner + rng.uniform(3, 20, (boxes, 2))], axis=1)
    image, labels, source = (
        rng.integers(0, images, boxes),
        rng.integers(0, 3, boxes),
        rng.integers(0, boxes, dets),
    )
    gt = GroundTruth(tuple(range(images)), image, truth, labels, names=("a", "b", "c"))
    wrong = rng.random(dets) < 0.3
    found = truth[source] + rng.normal(0, 0.5, (dets, 1)) + 100 * wrong[:, None]
    scores = np.where(wrong, rng.beta(2, 4, dets), rng.beta(4, 2, dets))
    return study(
        gt, Detections(image[source], found, scores, labels[source]), find_protocol("aitod")
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.usefixtures("no_figures")
def test_the_page_counts_as_the_figures_do(tmp_path, seed):
    """What the browser counts from the rounded rows is what the confusion and errors say."""
    some = noisy_study(seed)
    data = page_data(write_report(tmp_path, some).read_text())
    thresholds = data["thresholds"]
    for image, missed, wrong, found in zip(data["images"], *image_counts(some), strict=True):
        hits = [gt[6] is not None and gt[6] >= thresholds[gt[4]] for gt in image["g"]]
        false = [det[4] >= thresholds[det[5]] and det[6] > 1 for det in image["d"]]
        assert (sum(hits), len(hits) - sum(hits), sum(false)) == (found, missed, wrong)


@pytest.mark.usefixtures("no_figures")
def test_tables_of_the_page(tmp_path):
    """By size: the boxes and figures of each range, also where one name ends like another."""
    gt = GroundTruth((1,), [0, 0], [[0, 0, 6, 6], [50, 0, 70, 20]], [0, 0], names=("car",))
    sizes = {"t": [0, 8], "not_t": [8, None]}
    some = study(
        gt, Detections([0], [[0, 0, 6, 6]], [0.9], [0]), find_protocol("tinyperson", sizes=sizes)
    )
    data = page_data(write_report(tmp_path, some).read_text())
    assert [
        (row["size"], row["boxes"], row["ap"], row["ap50"], row["ar"]) for row in data["by_size"]
    ] == [
        ("t 0-8 px", 1, pytest.approx(1), pytest.approx(1), 1),
        ("not_t 8 px up", 1, 0, 0, 0),
    ]
    assert [(title, [name for name, _ in figures]) for title, figures in data["families"]] == [
        ("Average precision", ["ap", "ap25", "ap50", "ap75"]),
        ("Recall", ["ar_200"]),
        ("oLRP, lower is better", ["olrp", "olrp_loc", "olrp_fp", "olrp_fn"]),
    ]


def test_worst_images_come_first_and_the_best_are_kept(make_study):
    some = make_study(images=6)
    missed, wrong, found = image_counts(some)
    assert missed.tolist() == [0, 1, 2, 3, 4, 5]
    assert wrong.sum() == 0  # 0.2 is below the optimal scores
    assert found.tolist() == [6, 5, 4, 3, 2, 1]
    assert choose_images(some, 3).tolist() == [5, 4, 0]
    assert choose_images(some, 6).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("no_figures")
def test_pictures_stay_within_the_budget_and_may_be_missing(make_study, tmp_path, monkeypatch):
    monkeypatch.setattr("rfla.metrics.html_report.PICTURE_BYTES", 1000)
    picture = np.zeros((200, 200, 3), np.uint8)
    path = write_report(tmp_path, make_study(), lambda _: picture)
    data = page_data(path.read_text())
    assert [image["p"] for image in data["images"]] == ["p0", None, None, None]
    assert "3 of them without their picture" in data["shown"]
    bare = page_data(write_report(tmp_path, make_study()).read_text())
    assert bare["images"][1]["w"] == 188


def test_report_of_nothing(tmp_path):
    gt = GroundTruth((1,), [], [], [], names=("a",))
    empty = study(gt, Detections([], [], [], []), find_protocol("aitod"))
    assert page_data(write_report(tmp_path, empty).read_text())["images"][0]["d"] == []


ODD_NAMES = ("[/red]", "\x1b[31mship", r"$\frac$", "</script><b>", "日本")


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("found", [0, 40])
@pytest.mark.parametrize("names", [ODD_NAMES[:1], ODD_NAMES])
def test_odd_sets_have_a_page_and_tables(tmp_path, regions, found, names):
    """Ignored regions, no detections, one class, names that are markup, escapes or formulas."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 100, (20, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, 20, (20, 2))], axis=1)
    labels = rng.integers(0, len(names), 20)
    labels[:5] = REGION if regions else 0
    files = ("</script><img src=x onerror=alert(1)>.png", "[/b]\x1b[2J.png")
    gt = GroundTruth((1, 2), rng.integers(0, 2, 20), boxes, labels, names=names, files=files)
    rows = rng.integers(0, 20, found)
    dets = Detections(
        gt.image_index[rows], boxes[rows], rng.random(found), labels[rows].clip(min=0)
    )
    some = study(gt, dets, find_protocol("visdrone" if regions else "aitod"))
    page = write_report(tmp_path, some, title="<i>").read_text()
    assert page.count("</script>") == page.count("<script")
    assert "<img src=x" not in page
    assert "<i>" not in page
    text = io.StringIO()
    console = Console(file=text, width=100)
    console.print(some.metrics.table())
    console.print(
        compare(gt, dets, dets, some.metrics.protocol, names=("[/a]", "b"), draws=2).table()
    )
    assert "\x1b" not in text.getvalue()
    assert "[/red]" in text.getvalue()


def test_what_cannot_be_reported_leaves_nothing(make_study, tmp_path, no_figures):
    """A place that is a file, and a time that is no number; a protocol goes by its name too."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MetricError, match="file: cannot be made"):
        write_report(tmp_path / "file", make_study())
    with pytest.raises(MetricError, match=r"speed: .*nan.*: finite numbers expected"):
        write_report(tmp_path / "out", make_study(), speed={"nms": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    first = make_study()
    again = study(first.gt, first.detections, "aitod")
    assert again.metrics.figures == first.metrics.figures
    with pytest.raises(MetricError, match="did you mean 'aitod'"):
        study(first.gt, first.detections, "aitodd")
