"""The files of a validation: `predictions.json`, `results.json`, `report.html` and pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rfla.cfg import Config
from rfla.data import Annotations
from rfla.engine.inference import Speed
from rfla.errors import DataError
from rfla.files import write_atomically
from rfla.metrics import Detections, Study, write_report
from rfla.metrics.detection_files import coco_text
from rfla.metrics.results_json import write_results
from rfla.pictures.boxes import draw_boxes, tile_pictures, write_picture

Image = np.ndarray[Any, np.dtype[Any]]
TILES = 4  # images in a picture
VAL_PICTURES = 3  # of labels, and of detections
MIN_SCORE = 0.3  # of the detections that are drawn
SCORES = f"(scores from {MIN_SCORE:g})"


def write_files(
    cfg: Config, run_dir: Path, index: Annotations, judged: Study, speed: Speed | None
) -> None:
    """Write everything that `rfla val` leaves in its run directory."""
    milliseconds = speed.per_image() if speed is not None else None
    if cfg.save_json:
        write_atomically(run_dir / "predictions.json", coco_text(judged.detections, judged.gt))
    if cfg.plots:
        write_pictures(run_dir, index, judged.detections)
        write_page(cfg, run_dir, index, judged, milliseconds)
    else:
        write_results(run_dir, judged, milliseconds)


def write_page(
    cfg: Config,
    run_dir: Path,
    index: Annotations,
    judged: Study,
    speed: Mapping[str, float] | None = None,
) -> None:
    """Write `report.html`, its figures as PNG, and `results.json`."""

    def pixels(row: int) -> Image | None:
        try:
            return index.picture(row)
        except DataError:  # named when it was loaded
            return None

    write_report(
        run_dir,
        judged,
        pixels,
        title=f"{index.name}: {run_dir.name}",
        speed=speed,
        images=cfg.gallery,
    )


def write_pictures(run_dir: Path, index: Annotations, found: Detections) -> None:
    """Write `val_batch*_{labels,pred}.jpg`: the first images with their boxes and those found."""
    for number in range(VAL_PICTURES):
        rows = range(number * TILES, min((number + 1) * TILES, len(index)))
        labelled, predicted = [], []
        for row in rows:
            try:
                image = index.picture(row)
            except DataError:  # named when it was loaded
                continue
            own = index.rows_of(row)
            ignored = index.ignore[own] | index.crowd[own]
            labels = np.where(ignored, -1, index.labels[own])
            labelled.append(draw_boxes(image, index.boxes[own], labels, index.names))
            keep = (found.image_index == row) & (found.scores >= MIN_SCORE)
            boxes, labels, scores = found.boxes[keep], found.labels[keep], found.scores[keep]
            predicted.append(draw_boxes(image, boxes, labels, index.names, scores, note=SCORES))
        for kind, tiles in (("labels", labelled), ("pred", predicted)):
            if tiles:
                write_picture(run_dir / f"val_batch{number}_{kind}.jpg", tile_pictures(tiles))
