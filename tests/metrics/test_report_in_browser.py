"""How the report page behaves in a browser: slow, and with Chromium alone."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from rfla.metrics import Detections, GroundTruth, find_protocol
from rfla.metrics.analysis import study
from rfla.metrics.html_report import write_report

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
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
const click = (id) => document.getElementById(id).click();
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
  click("viewer-previous");
  await wait(300);
  told.previous = document.getElementById("viewer-counts").textContent;
  told.ends = ["viewer-previous", "viewer-next"].map((id) => document.getElementById(id).disabled);
  told.resized = [fit, () => zoom(2, 300, 300)].map((look) => {
    look();
    const before = viewer.scale;
    canvas.style.width = "320px";
    dispatchEvent(new Event("resize"));
    canvas.style.width = "";
    return viewer.scale / before;
  });
  click("viewer-close");
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
        "3 found3 missed0 false positives",
        "4 found2 missed0 false positives",
        "5 found1 missed0 false positives",
        "6 found0 missed0 false positives",
    ]
    assert told["totals"] == "18 found, 6 missed, 0 false positives in 4 images"
    assert told["thumbnail"] > 2
    assert told["class_b"][0] == "2 found1 missed0 false positives"
    assert told["very_tiny"][0] == "1 found2 missed0 false positives"
    assert told["best"][0] == "6 found0 missed0 false positives"
    assert told["optimal"] is False
    assert told["low_score"][0] == "6 found0 missed2 false positives"
    assert told["viewer"] is True
    assert told["fitted"] > 3
    assert told["zoomed"] > 10
    assert told["next"].startswith("4 found")
    assert told["previous"].startswith("3 found")
    assert told["ends"] == [True, False]
    assert told["resized"] == [pytest.approx(0.4, abs=0.2), 1]  # who has zoomed in keeps the scale


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
def test_500_images_do_not_freeze_the_page(make_study, tmp_path):
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


# A window has 500 px at least, so that the page of a phone stands in a frame.
FRAME = """<!doctype html><body><script>
addEventListener("message", (event) => { document.body.dataset.told = event.data; });
</script><iframe src="inner.html" style="width: 400px; height: 900px"></iframe>"""
MEASURE = """<script>addEventListener("load", () => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const style = (selector) => getComputedStyle(document.querySelector(selector));
  parent.postMessage(JSON.stringify({
    rows: all(".family").map((family) =>
      new Set([...family.querySelectorAll(".figure")].map((b) => Math.round(
        b.getBoundingClientRect().bottom))).size),
    wide: all(".plot img").map((image) => image.clientWidth),
    sideways: document.documentElement.scrollWidth - innerWidth,
    frames: [style(".plot").borderTopColor, style(".card").borderTopColor],
    filter: style(".plot img").filter,
    slider: [style(".score").opacity, (set("optimal", false), style(".score").opacity)],
    tables: all("td").map((cell) => [cell.textContent, cell.title]),
  }), "*");
});</script>"""


def measure(path, tmp_path, *flags):
    """What a page of 400 px looks like."""
    (tmp_path / "frame.html").write_text(FRAME)
    page = path.read_text().replace("</body>", SET + MEASURE + "</body>")
    (tmp_path / "inner.html").write_text(page)
    dom = browse(tmp_path / "frame.html", tmp_path, VIRTUAL, "--dump-dom", *flags)
    return json.loads(html.unescape(re.search(r'data-told="([^"]*)"', dom).group(1)))


@pytest.mark.slow
@needs_chromium
def test_the_page_of_a_phone(report, tmp_path):
    """Each family of figures in one row, two plots in one scrolled, and nothing else sideways."""
    told = measure(report, tmp_path)
    assert told["rows"] == [1, 1, 1]
    assert sorted(told["wide"])[-1] >= 740 and sorted(told["wide"])[-2] < 400
    assert told["sideways"] <= 0
    assert told["slider"] == ["0.5", "1"]  # pale while the best scores count
    assert ["nms", "nms"] in told["tables"] and ["1.5", ""] in told["tables"]


@pytest.mark.slow
@needs_chromium
def test_figures_in_a_dark_page(report, tmp_path):
    """Their colours are those of the boxes on the images, and their frame is that of a card."""
    told = measure(report, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert told["frames"][0] == told["frames"][1] == "rgb(46, 53, 63)"
    assert told["filter"] == "brightness(0.88)"


@pytest.mark.slow
@needs_chromium
def test_long_names_keep_their_tail_in_the_table(tmp_path):
    names = tuple(f"an extraordinarily long name {number}" for number in range(2))
    gt = GroundTruth((1,), [0, 0], [[0, 0, 6, 6], [50, 0, 70, 20]], [0, 1], names=names)
    found = study(gt, Detections([0], [[0, 0, 6, 6]], [0.9], [0]), find_protocol("aitod"))
    told = measure(write_report(tmp_path / "val", found), tmp_path)
    for number, name in enumerate(names):
        assert [f"an extraord...ong name {number}", name] in told["tables"]
