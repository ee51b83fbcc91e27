"""The report page: what it holds, and (slow, with Chromium) how it behaves in a browser."""

import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from rfla.errors import MetricError
from rfla.metrics import REGION, Detections, GroundTruth, find_protocol
from rfla.metrics.analysis import study
from rfla.metrics.compare import compare
from rfla.metrics.html_report import choose_images, image_counts, write_report

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
NASTY = "</script><b>&.png"


def make_study(images=4, per_image=6, dets=8):
    """Image i misses i of its boxes; every third detection is of nothing.

    Class b is of 20 px, class a of 6 px.
    """
    sides = np.where(np.arange(per_image) % 2, 20.0, 6.0)
    left = np.arange(per_image) * 30.0 + 5
    boxes = np.tile(np.stack([left, left, left + sides, left + sides], axis=1), (images, 1))
    image = np.repeat(np.arange(images), per_image)
    labels = np.tile(np.arange(per_image) % 2, images)
    found = np.tile(np.arange(per_image), images) >= image  # the first i are missed
    nothing = np.tile([180.0, 5, 188, 13], (images * (dets // 3), 1))
    count = len(nothing)
    gt = GroundTruth(
        tuple(range(images)),
        image,
        boxes,
        labels,
        names=("a<b>", "b"),
        files=(NASTY, *("x.png",) * (images - 1)),
    )
    detections = Detections(
        np.concatenate([image[found], np.repeat(np.arange(images), dets // 3)]),
        np.concatenate([boxes[found], nothing]),
        np.concatenate([np.full(found.sum(), 0.7), np.full(count, 0.2)]),
        np.concatenate([labels[found], np.zeros(count, np.int64)]),
    )
    return study(gt, detections, find_protocol("aitod"))


def picture(image):
    return np.full((200, 200, 3), 40 * (image % 6), np.uint8)


def page_data(text):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S).group(1)
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(
        tmp_path_factory.mktemp("run") / "val",
        make_study(),
        picture,
        title="A <run>",
        speed={"nms": 1.5},
    )


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr("rfla.metrics.html_report.draw_figures", lambda *_: {})


def test_files_of_a_report(report):
    names = {path.name for path in report.parent.iterdir()}
    figures = ("pr_by_iou", "pr_by_size", "by_size", "errors", "calibration", "confusion")
    assert names == {"report.html", "results.json", *(f"{figure}.png" for figure in figures)}
    told = json.loads((report.parent / "results.json").read_text())
    assert told["metrics"]["ap50"] == pytest.approx(
        told["metrics"]["per_class"][0]["ap50"] / 2 + 0.5, abs=0.3
    )
    assert told["analysis"]["by_size"]["size"]
    assert told["speed_ms"] == {"nms": 1.5}


def test_page_needs_no_network_and_survives_hostile_names(report):
    text = report.read_text()
    assert not re.search(r"https?://|//[a-z]+\.|@import|<link (?!rel=\"icon\" href=\"data:)", text)
    assert "default-src 'none'" in text
    assert NASTY not in text
    assert "<title>A &lt;run&gt;</title>" in text
    data = page_data(text)
    assert data["images"][0]["name"] == NASTY
    assert data["names"] == ["a<b>", "b"]


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


def test_worst_images_come_first_and_the_best_are_kept():
    some = make_study(images=6)
    missed, wrong, found = image_counts(some)
    assert missed.tolist() == [0, 1, 2, 3, 4, 5]
    assert wrong.sum() == 0  # 0.2 is below the optimal scores
    assert found.tolist() == [6, 5, 4, 3, 2, 1]
    assert choose_images(some, 3).tolist() == [5, 4, 0]
    assert choose_images(some, 6).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("no_figures")
def test_pictures_stay_within_the_budget_and_may_be_missing(tmp_path):
    text = write_report(tmp_path, make_study(), picture, megabytes=0.001).read_text()
    data = page_data(text)
    assert [image["p"] for image in data["images"]] == ["p0", None, None, None]
    assert "3 of them without their picture" in data["shown"]
    bare = page_data(write_report(tmp_path, make_study()).read_text())
    assert bare["images"][1]["w"] == 188


def test_report_of_nothing(tmp_path):
    gt = GroundTruth((1,), [], [], [], names=("a",))
    empty = study(gt, Detections([], [], [], []), find_protocol("aitod"))
    assert page_data(write_report(tmp_path, empty).read_text())["images"][0]["d"] == []


CATCH = """<script>
window.problems = [];
addEventListener("error", (e) => problems.push(String(e.message)));
addEventListener("unhandledrejection", (e) => problems.push(String(e.reason)));
addEventListener("securitypolicyviolation", (e) => problems.push("policy " + e.blockedURI));
for (const level of ["error", "warn"])
  console[level] = (...words) => problems.push(words.join(" "));
</script>"""
SET = """<script>
const set = (id, value) => {
  const input = document.getElementById(id);
  if (input.type === "checkbox") input.checked = value; else input.value = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
};
</script>"""
TIME = """<script>
const start = performance.now();
for (let i = 0; i < 5; i++) set("score", String(0.1 + 0.1 * i));
document.body.dataset.milliseconds = (performance.now() - start) / 5;
</script>"""
# The browser's clock is virtual and leaps over idle time, but pictures are decoded in real time: a
# ticking timer makes it wait for them.
DRIVE = """<script>
const ticking = setInterval(() => {}, 1);
const told = { problems };
const cards = () => [...document.querySelectorAll(".card .counts")].map((card) => card.textContent);
const painted = (canvas) => new Set(new Uint32Array(
  canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size;
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
(async () => {
  await wait(500);
  told.all = cards();
  told.totals = document.getElementById("totals").textContent;
  // nothing comes into view where no frame is made
  await drawThumbnail(document.querySelector(".card").image);
  told.thumbnail = painted(document.querySelector(".card canvas"));
  set("class", "1"); told.class_b = cards();
  set("class", "-1"); set("size", "0"); told.very_tiny = cards();
  set("size", "-1"); set("sort", "best"); told.best = cards();
  set("score", "0.1"); told.low_score = cards();
  told.optimal = document.getElementById("optimal").checked;
  set("sort", "misses");
  document.querySelector(".card").click();
  await wait(300);
  const canvas = document.getElementById("viewer-canvas");
  told.viewer = document.getElementById("viewer").open;
  told.fitted = painted(canvas);
  const turn = { deltaY: -400, clientX: 300, clientY: 300 };
  for (let i = 0; i < 6; i++) canvas.dispatchEvent(new WheelEvent("wheel", turn));
  told.zoomed = viewer.scale;
  dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
  await wait(300);
  told.next = document.getElementById("viewer-counts").textContent;
  document.getElementById("viewer-close").click();
  document.body.dataset.told = JSON.stringify(told);
  clearInterval(ticking);
})();
</script>"""
LINGER = """<script>
const ticking = setInterval(() => {}, 1);
(async () => {
  for (const image of data.images) {
    while (!image.thumbnail) await new Promise((resolve) => setTimeout(resolve, 5));
    await image.thumbnail;
  }
  await new Promise((resolve) => setTimeout(resolve, 500));
  clearInterval(ticking);
})();
</script>"""


VIRTUAL = "--virtual-time-budget=2000000"


def browse(path, tmp_path, *flags):
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command += ["--window-size=1280,4000", *flags, path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout


def drive(path, tmp_path):
    """Open the page in headless Chromium, use it as a person would, and return what it showed."""
    page = path.read_text().replace('<meta charset="utf-8">', '<meta charset="utf-8">' + CATCH)
    driven = tmp_path / "driven.html"
    driven.write_text(page.replace("</body>", SET + DRIVE + "</body>"))
    dom = browse(driven, tmp_path, VIRTUAL, "--dump-dom")
    body = re.search(r'data-told="([^"]*)"', dom)
    assert body, f"the page did not get to its end: {dom[-500:]}"
    return json.loads(
        body.group(1).replace("&quot;", '"').replace("&lt;", "<").replace("&amp;", "&")
    )


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in the path")


@pytest.mark.slow
@needs_chromium
def test_page_in_a_browser(report, tmp_path):
    told = drive(report, tmp_path)
    assert told["problems"] == []
    assert told["all"] == [
        "3 found3 missed0 wrong",
        "4 found2 missed0 wrong",
        "5 found1 missed0 wrong",
        "6 found0 missed0 wrong",
    ]
    assert told["totals"] == "18 found, 6 missed, 0 false positives in 4 images"
    assert told["thumbnail"] > 2
    assert told["class_b"][0] == "2 found1 missed0 wrong"
    assert told["very_tiny"][0] == "1 found2 missed0 wrong"
    assert told["best"][0] == "6 found0 missed0 wrong"
    assert told["optimal"] is False
    assert told["low_score"][0] == "6 found0 missed2 wrong"
    assert told["viewer"] is True
    assert told["fitted"] > 3
    assert told["zoomed"] > 10
    assert told["next"].startswith("4 found")


@pytest.mark.slow
@needs_chromium
def test_images_are_drawn_as_they_come_into_view(report, tmp_path):
    """Green and red boxes can be seen on a picture of the page that nobody touched."""
    page = tmp_path / "page.html"
    page.write_text(report.read_text().replace("</body>", LINGER + "</body>"))
    browse(page, tmp_path, VIRTUAL, f"--screenshot={tmp_path / 'page.png'}")
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"), np.int64)
    for colour in ((0x22, 0xC2, 0x6A), (0xFF, 0x3B, 0x30)):
        assert (np.abs(pixels - colour).max(axis=2) < 40).sum() > 100


@pytest.mark.slow
@needs_chromium
@pytest.mark.usefixtures("no_figures")
def test_500_images_do_not_freeze_the_page(tmp_path):
    big = make_study(images=500, per_image=100, dets=300)
    path = write_report(
        tmp_path / "val", big, lambda image: np.full((64, 64, 3), image % 255, np.uint8), images=500
    )
    told = drive(path, tmp_path)
    assert told["problems"] == []
    assert len(told["all"]) == 500
    timed = tmp_path / "timed.html"
    timed.write_text(path.read_text().replace("</body>", SET + TIME + "</body>"))
    milliseconds = re.search(
        r'data-milliseconds="([0-9.]+)"', browse(timed, tmp_path, "--dump-dom")
    )
    assert (
        float(milliseconds.group(1)) < 1000
    )  # one change of a filter, everything recounted and sorted


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


def test_what_cannot_be_reported_leaves_nothing(tmp_path, no_figures):
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
