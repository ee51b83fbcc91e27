"""`report.html`: one page, no network, with figures, curves, and the worst and best images.

Pictures are stored once, at full resolution, since the objects are 6 px; the page unpacks them as
they come into view.
"""

import base64
import datetime
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfla.errors import MetricError, printable, shorten
from rfla.files import write_atomically
from rfla.metrics.analysis import Study
from rfla.metrics.arrays import IntArray
from rfla.metrics.error_types import CORRECT, IGNORED, TYPES
from rfla.metrics.plots import draw_figures, size_label
from rfla.metrics.results_json import write_results
from rfla.pictures.text import short_names
from rfla.version import __version__

ReadPicture = Callable[[int], NDArray[np.uint8] | None]
"""Position of an image in `GroundTruth.image_ids` -> (H, W, 3) uint8 RGB; None: no picture."""

PAGE = Path(__file__).parent / "page"
SCRIPTS = ("viewer.js", "page.js")  # in this order: the last line starts the page
WORST_SHARE = 2 / 3
PICTURE_BYTES = 80_000_000
"""Once the pictures take so much of the page, the images that follow come without theirs."""
LOWEST_SCORE = 0.05
"""Detections with a lower score are left out, unless the best threshold of a class is lower."""
DIGITS = 6
"""Decimals of scores and thresholds on the page: a score at its threshold must reach it."""
OVERALL = ("ap", "ap25", "ap50", "ap75")


def write_report(
    directory: str | Path,
    study: Study,
    read_picture: ReadPicture | None = None,
    *,
    title: str = "Evaluation",
    speed: Mapping[str, float] | None = None,
    images: int = 60,
) -> Path:
    """Write `report.html`, `results.json` and the figures as PNG into a directory.

    Args:
        directory: made if it is not there.
        study: of `rfla.metrics.analysis.study`.
        read_picture: gives the pixels of an image; None: boxes on plain ground.
        title: of the page.
        speed: milliseconds an image by stage.
        images: how many images the gallery shows, two thirds of them the worst, the others the
            best.

    Returns:
        The path of `report.html`.

    Raises:
        MetricError: the directory cannot be made, or a time is no number.
    """
    if not all(np.isfinite(value) for value in (speed or {}).values()):
        raise MetricError(f"speed: {shorten(speed)}: finite numbers expected")
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MetricError(f"{folder}: cannot be made ({error.strerror})") from None
    figures = draw_figures(study.analysis, study.metrics.protocol)
    for name, png in figures.items():
        write_atomically(folder / f"{name}.png", png)
    write_results(folder, study, speed)
    chosen = choose_images(study, images)
    rows, pictures = _gallery(study, chosen, read_picture)
    page = Template((PAGE / "page.html").read_text("utf-8")).substitute(
        title=html.escape(title),
        style=(PAGE / "page.css").read_text("utf-8"),
        script="".join((PAGE / name).read_text("utf-8") for name in SCRIPTS),
        plots="".join(_plot(name, png) for name, png in figures.items()),
        data=_json_in_html(_page_data(study, rows, speed)),
        pictures="\n".join(pictures),
    )
    write_atomically(folder / "report.html", page)
    return folder / "report.html"


def choose_images(study: Study, count: int) -> IntArray:
    """Return the positions of the images with most errors, then of those with the highest F1."""
    missed, wrong, found = image_counts(study)
    total = len(missed)
    if total <= count:
        return np.arange(total)
    worst = np.lexsort((np.arange(total), -(missed + wrong)))[: round(count * WORST_SHARE)]
    f1 = 2 * found / np.maximum(2 * found + missed + wrong, 1)
    best = np.lexsort((-found, -f1))
    return np.concatenate([worst, best[~np.isin(best, worst)][: count - len(worst)]])


def image_counts(study: Study) -> tuple[IntArray, IntArray, IntArray]:
    """Return (N,) missed boxes, false positives and found boxes at the optimal scores."""
    errors, count = study.errors, len(study.gt.image_ids)
    optimal = np.array([np.inf if t is None else t for t in study.analysis.thresholds])
    gt_image, gt_label = study.gt.image_index[errors.gt_row], study.gt.labels[errors.gt_row]
    found = errors.counted & (errors.found_score >= optimal[gt_label])
    missed = errors.counted & ~found
    image, label = (
        study.detections.image_index[errors.det_row],
        study.detections.labels[errors.det_row],
    )
    wrong = (errors.type != CORRECT) & (errors.type != IGNORED)
    wrong &= study.detections.scores[errors.det_row] >= optimal[label]
    counts = [
        np.bincount(rows, minlength=count)
        for rows in (gt_image[missed], image[wrong], gt_image[found])
    ]
    return counts[0], counts[1], counts[2]


def _gallery(
    study: Study, chosen: IntArray, read_picture: ReadPicture | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the data of each image, and its picture in a script element that is not parsed."""
    det_rows, gt_rows = _by_image(study)
    lowest = _lowest_score(study)
    det_rows = [
        rows[study.detections.scores[study.errors.det_row[rows]] >= lowest] for rows in det_rows
    ]
    rows, pictures, used = [], [], 0
    for image in chosen.tolist():
        pixels = read_picture(image) if read_picture is not None and used < PICTURE_BYTES else None
        row = _image_row(study, image, det_rows[image], gt_rows[image])
        if pixels is not None:
            packed = _jpeg(pixels)
            used += len(packed)
            row |= {"h": pixels.shape[0], "w": pixels.shape[1], "p": f"p{image}"}
            pictures.append(f'<script type="text/plain" id="p{image}">{packed}</script>')
        rows.append(row)
    return rows, pictures


def _by_image(study: Study) -> tuple[list[IntArray], list[IntArray]]:
    """Return for each image the positions in the errors of its detections and true boxes."""
    errors, count = study.errors, len(study.gt.image_ids)
    split = []
    for image in (
        study.detections.image_index[errors.det_row],
        study.gt.image_index[errors.gt_row],
    ):
        order = np.argsort(image, kind="stable")
        split.append(np.split(order, np.searchsorted(image[order], np.arange(1, count))))
    return split[0], split[1]


def _image_row(study: Study, image: int, dets: IntArray, gts: IntArray) -> dict[str, Any]:
    """Return one image for the page; see the head of page.js for the columns."""
    errors, detections, gt = study.errors, study.detections, study.gt
    assert gt.area is not None and detections.sides is not None
    rows, gt_rows = errors.det_row[dets], errors.gt_row[gts]
    det_columns = [
        *detections.boxes[rows].round(1).T.tolist(),
        detections.scores[rows].round(DIGITS).tolist(),
        detections.labels[rows].tolist(),
        errors.type[dets].tolist(),
        np.sqrt(detections.sides[rows].prod(axis=1)).round(2).tolist(),
    ]
    scores = (errors.found_score, errors.localisation_score, errors.wrong_class_score)
    gt_columns = [
        *gt.boxes[gt_rows].round(1).T.tolist(),
        gt.labels[gt_rows].tolist(),
        np.sqrt(gt.area[gt_rows].clip(0)).round(2).tolist(),
        *(
            [round(s, DIGITS) if np.isfinite(s) else None for s in score[gts].tolist()]
            for score in scores
        ),
        errors.wrong_class_label[gts].tolist(),
        errors.counted[gts].astype(int).tolist(),
    ]
    far = np.concatenate([gt.boxes[gt_rows], detections.boxes[rows]]).max(axis=0, initial=1.0)
    name = gt.files[image] if gt.files and gt.files[image] else str(gt.image_ids[image])
    sides = {"w": float(np.ceil(far[2])), "h": float(np.ceil(far[3])), "p": None}
    return {"name": printable(name), **sides, "d": _rows(det_columns), "g": _rows(gt_columns)}


def _rows(columns: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(row) for row in zip(*columns, strict=True)]


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    """Return a picture as base64 JPEG; colours are not subsampled, for tiny objects."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", quality=88, subsampling=0)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


# What the figures show, for those who cannot see them.
FIGURES = {
    "pr_by_iou": "Precision and recall by IoU",
    "pr_by_size": "Precision and recall by size, at IoU 0.5",
    "by_size": "Recall and AP against object size",
    "errors": "What became of the true boxes, and what the detections were",
    "calibration": "Precision against score",
    "confusion": "Confusion matrix",
}


def _plot(name: str, png: bytes) -> str:
    kind = "plot wide" if name == "errors" else "plot"
    source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    image = f'<img alt="{html.escape(FIGURES.get(name, name))}" src="{source}">'
    return f'<div class="{kind}">{image}</div>'


def _lowest_score(study: Study) -> float:
    """Return the score from which detections are on the page."""
    return min([LOWEST_SCORE, *(t for t in study.analysis.thresholds if t is not None)])


def _page_data(
    study: Study, rows: list[dict[str, Any]], speed: Mapping[str, float] | None
) -> dict[str, Any]:
    metrics, protocol, total = study.metrics, study.metrics.protocol, len(study.gt.image_ids)
    as_dict = metrics.as_dict()
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    shown = (
        (f"All {total:,} images" if total > 1 else "One image")
        if len(rows) == total
        else f"{len(rows):,} of {total:,} images: the worst and the best"
    )
    bare, lowest = sum(row["p"] is None for row in rows), round(_lowest_score(study), DIGITS)
    without = f"; {bare} of them without their picture" if bare else ""
    return {
        "about": f"{protocol.name} protocol, {total:,} images, {len(study.gt.labels):,} boxes, "
        f"{len(study.detections):,} detections; rfla {__version__}, {when}",
        "families": _families(study),
        "by_size": _size_table(study),
        "classes": [_class_row(row) for row in as_dict["per_class"]],
        "speed": [
            {"stage": stage, "ms per image": round(ms, 1)} for stage, ms in (speed or {}).items()
        ],
        "shown": f"{shown}{without}. Found, missed and false positives are counted at IoU 0.5. "
        f"Detections with a score below {lowest:.2g} are left out.",
        "names": [printable(name) for name in study.gt.names],
        "short_names": short_names(study.gt.names),
        "kinds": list(TYPES),
        "thresholds": [None if t is None else round(t, DIGITS) for t in study.analysis.thresholds],
        "scores": [lowest, max(1.0, float(study.detections.scores.max(initial=1.0)))],
        "sizes": [(size_label(protocol, name), low, high) for name, low, high in protocol.sizes],
        "images": rows,
    }


def _families(study: Study) -> list[tuple[str, list[tuple[str, float]]]]:
    """Return the figures that are not by size, family by family."""
    figures, limits = study.metrics.figures, study.metrics.protocol.max_dets
    families = {
        "Average precision": OVERALL,
        "Recall": [f"ar_{limit}" for limit in limits],
        "oLRP, lower is better": [name for name in figures if name.startswith("olrp")],
    }
    return [
        (title, [(name, figures[name]) for name in names if name in figures])
        for title, names in families.items()
    ]


def _size_table(study: Study) -> list[dict[str, Any]]:
    """Return one line for each size range: how many boxes, and every figure of that size."""
    metrics, rows = study.metrics, []
    for a, name in enumerate(metrics.protocol.size_names[1:], start=1):
        row = {
            "size": size_label(metrics.protocol, name),
            "boxes": int(metrics.curves.boxes[:, a].sum()),
        }
        figures = {key: metrics.figures.get(f"{key}_{name}") for key in (*OVERALL, "ar")}
        rows.append(row | {key: value for key, value in figures.items() if value is not None})
    return rows


def _class_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one line of the class table."""
    renamed = {"name": "class", "threshold": "best_score"}
    line = {
        renamed.get(key, key.removeprefix("olrp_")): value
        for key, value in row.items()
        if key != "category_id"
    }
    return line | {"class": printable(row["name"])}


def _json_in_html(data: Any) -> str:
    """Return JSON that cannot end its script element, whatever the file names hold."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
