"""What a run leaves for people: its opening and closing lines, pictures and `report.html`.

Shapes: B images of a batch, P points or anchors.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rfla.cfg import Config
from rfla.cfg.keys import show
from rfla.data import Annotations, Batch
from rfla.engine.device import device_label
from rfla.engine.distributed import World
from rfla.engine.inference import Speed
from rfla.errors import DataError
from rfla.files import write_atomically
from rfla.metrics import Detections, Study, write_report
from rfla.metrics.detection_files import to_coco
from rfla.metrics.html_report import write_results
from rfla.pictures.boxes import draw_boxes, tile_pictures, write_picture
from rfla.pictures.curves import plot_labels
from rfla.version import __version__

Image = np.ndarray[Any, np.dtype[Any]]
LONGEST_VALUE = 300  # letters of a setting, mostly a path, in the line of those that were given
TILES = 4  # images in a picture
BATCH_PICTURES = 3  # the first batches of a run are drawn
VAL_PICTURES = 3  # of labels, and of detections
MIN_SCORE = 0.3  # of the detections that are drawn
SCORES = f"(scores from {MIN_SCORE:g})"


# ---------------------------------------------------------------------- training


def opening_lines(
    cfg: Config,
    net: nn.Module,
    splits: Mapping[str, Annotations],
    device: torch.device,
    dtype: torch.dtype | None,
    world: World,
) -> list[str]:
    """Return what runs on what: versions, device, the keys that were given, model and data."""
    processes = f", {world.size} processes" if world.size > 1 else ""
    precision = str(dtype or torch.float32).removeprefix("torch.")
    lines = [
        f"rfla {__version__}, torch {torch.__version__}, {device_label(device)}, "
        f"{precision}{processes}"
    ]
    if cfg.verbose and cfg.given:
        values = cfg.model_dump(mode="json")
        given = (f"{key}={show(_at(values, key), LONGEST_VALUE)}" for key in sorted(cfg.given))
        lines.append(f"given: {' '.join(given)}")
    parameters = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    names = next(iter(splits.values())).names
    lines.append(
        f"model {cfg.model}: {cfg.detector} with {cfg.backbone.name}, "
        f"assigner {cfg.assigner.name}, {parameters:.1f} M parameters, {len(names)} classes"
    )
    for split, index in splits.items():
        repairs = "".join(f"; {count} {what}" for what, count in sorted(index.counts.items()))
        lines.append(f"{split}: {len(index)} images, {len(index.boxes)} boxes{repairs}")
    return lines


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def draw_labels(path: Path, index: Annotations) -> None:
    """Write `labels.png`: classes, sizes and numbers of the boxes that are learnt."""
    real = ~(index.ignore | index.crowd)
    per_image = np.diff(index.box_start)
    plot_labels(path, index.boxes[real], index.labels[real], per_image, index.names)


@torch.no_grad()
def draw_batch(
    path: Path, net: nn.Module, batch: Batch, inputs: Tensor, names: Sequence[str]
) -> None:
    """Write `train_batchN.jpg`: images with their boxes and the points or anchors that learn them.

    The network runs once more for it, in evaluation mode, in which it is left.

    Args:
        path: The picture.
        net: The network that learns.
        batch: On the device of `net`.
        inputs: (B, 3, H, W) its images, prepared.
        names: Of the classes.
    """
    detector: Any = net.eval()
    priors = detector.priors(detector.raw(inputs), batch.targets, batch.image_sizes)
    tiles = []
    for i, (height, width) in enumerate(batch.image_sizes[:TILES]):
        pixels = batch.images[i, :, :height, :width].permute(1, 2, 0).cpu().numpy()
        boxes, labels = (batch.targets[i][key].cpu().numpy() for key in ("boxes", "labels"))
        points = None
        if priors is not None:
            grid, matched = priors
            positive = matched[i] >= 0
            corners = grid.boxes[positive]
            centers = (corners[:, :2] + corners[:, 2:]) / 2
            points = (centers.cpu().numpy(), matched[i][positive].cpu().numpy())
        tiles.append(draw_boxes(pixels, boxes, labels, names, points=points))
    write_picture(path, tile_pictures(tiles))


def closing_lines(cfg: Config, run_dir: Path, best: Path, has_report: bool) -> list[str]:
    """Return the paths of what a run left, and the next commands."""
    lines = [f"weights  {best}"]
    if cfg.plots:
        lines.append(f"curves   {run_dir / 'results.png'}")
    if has_report:
        lines.append(f"pictures {run_dir / 'val_batch0_pred.jpg'}")
        lines.append(f"report   {run_dir / 'report.html'}")
    model, data = shlex.quote(f"model={best}"), shlex.quote(f"data={cfg.data}")
    return [
        *lines,
        f"next     rfla val {model} {data}",
        f"         rfla predict {model} source=DIR",
    ]


# ---------------------------------------------------------------------- validation


def write_files(
    cfg: Config, run_dir: Path, index: Annotations, judged: Study, speed: Speed | None
) -> None:
    """Write everything that `rfla val` leaves in its run directory."""
    milliseconds = speed.per_image() if speed is not None else None
    if cfg.save_json:
        write_atomically(
            run_dir / "predictions.json", json.dumps(to_coco(judged.detections, judged.gt))
        )
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
