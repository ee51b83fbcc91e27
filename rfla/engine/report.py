"""What a training run tells people: its opening lines, its pictures, and where everything is at the end."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import rfla
from rfla.cfg.keys import show
from rfla.data import Batch, BoxIndex
from rfla.engine.build import training_mode
from rfla.engine.device import device_label
from rfla.engine.distributed import World
from rfla.engine.inference import Inference, detect, prepare_images
from rfla.engine.loaders import evaluation_loader
from rfla.engine.model_source import load_trained
from rfla.engine.val_files import write_page, write_pictures
from rfla.engine.validator import ground_truth
from rfla.metrics import evaluate_boxes, study
from rfla.pictures.boxes import draw_boxes, tile_pictures, write_picture
from rfla.pictures.curves import plot_labels, plot_results

if TYPE_CHECKING:
    from rfla.engine.trainer import Trainer, TrainResult

LONGEST_VALUE = 300  # letters of a setting, mostly a path, in the line of those that were given
TILES = 4  # images in a picture of a training batch
BATCH_PICTURES = 3  # the first batches of a run are drawn


def announce(trainer: Trainer) -> None:
    """Print what runs on what, into which directory."""
    parts, cfg = trainer.parts, trainer.cfg
    parameters = sum(parameter.numel() for parameter in parts.net.parameters()) / 1e6
    processes = f", {trainer.world.size} processes" if trainer.world.size > 1 else ""
    precision = str(trainer.dtype or torch.float32).removeprefix("torch.")
    device = device_label(trainer.device)
    trainer.say(
        f"rfla {rfla.__version__}, torch {torch.__version__}, {device}, {precision}{processes}"
    )
    if cfg.verbose and cfg.given:
        values = cfg.model_dump(mode="json")
        given = (f"{key}={show(_at(values, key), LONGEST_VALUE)}" for key in sorted(cfg.given))
        trainer.say(f"given: {' '.join(given)}")
    for note in parts.notes:
        trainer.say(note, "yellow")
    trainer.say(
        f"model {cfg.model}: {cfg.detector} with {cfg.backbone.name}, assigner {cfg.assigner.name}, "
        f"{parameters:.1f} M parameters, {len(parts.names)} classes"
    )
    splits = [(cfg.train_split, parts.train_index), (cfg.split, parts.val_index)]
    for split, index in splits if cfg.val else splits[:1]:
        trainer.say(f"{split}: {len(index)} images, {len(index.boxes)} boxes{counted(index)}")
    trainer.say(f"writing to {trainer.run_dir}")
    picture = trainer.run_dir / "labels.png"
    if trainer.is_main and cfg.plots and not (cfg.resume and picture.exists()):
        index = parts.train_index
        real = ~(index.ignore | index.crowd)
        plot_labels(
            picture, index.boxes[real], index.labels[real], np.diff(index.box_start), parts.names
        )


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def counted(index: BoxIndex) -> str:
    """Return what was dropped or repaired while reading, in words."""
    return "".join(f"; {count} {reason}" for reason, count in sorted(index.counts.items()))


@torch.no_grad()
def write_batch_picture(trainer: Trainer, batch: Batch) -> None:
    """Write `train_batchN.jpg`: images of a batch with their boxes and the points or anchors that learn them.

    The network runs once more for it, in evaluation mode, so that nothing of the training changes.
    """
    net: Any = trainer.net.eval()
    normalize = trainer.parts.model_config.normalize
    raw = net.raw(prepare_images(batch.images, batch.image_sizes, normalize))
    priors = net.priors(raw, batch.targets, batch.image_sizes)
    training_mode(trainer.net, trainer.cfg.freeze)
    tiles = []
    for i, (height, width) in enumerate(batch.image_sizes[:TILES]):
        pixels = batch.images[i, :, :height, :width].permute(1, 2, 0).cpu().numpy()
        boxes, labels = (batch.targets[i][key].cpu().numpy() for key in ("boxes", "labels"))
        points = None
        if priors is not None:
            grid, matched = priors
            chosen = matched[i] >= 0
            corners = grid.boxes[chosen]
            points = (
                ((corners[:, :2] + corners[:, 2:]) / 2).cpu().numpy(),
                matched[i][chosen].cpu().numpy(),
            )
        tiles.append(draw_boxes(pixels, boxes, labels, trainer.parts.names, points=points))
    write_picture(
        trainer.run_dir / f"train_batch{trainer.position.batch}.jpg", tile_pictures(tiles)
    )


def finish(trainer: Trainer, result: TrainResult) -> TrainResult:
    """Write the last pictures, and print where everything is and what to type next.

    The main process only.
    """
    cfg, parts = trainer.cfg, trainer.parts
    if result.metrics is None and cfg.val and trainer.position.best_epoch:
        result = replace(result, metrics=validate_best(trainer, result))
    if cfg.plots:
        results = trainer.results
        columns = {
            name: results.column(name)
            for name in dict.fromkeys(key for row in results.rows for key in row)
        }
        if columns:
            plot_results(trainer.run_dir / "results.png", columns)
        if parts.best_detections is not None:
            write_pictures(trainer.run_dir, parts.val_index, parts.best_detections)
            judged = study(ground_truth(parts.val_index), parts.best_detections, trainer.protocol)
            write_page(cfg, trainer.run_dir, parts.val_index, judged)
    if result.metrics is not None:
        if cfg.verbose:
            trainer.console.print(result.metrics.table())
        trainer.say(f"best AP {result.metrics.ap:.3f} in epoch {trainer.position.best_epoch}")
    for split, loader in ((cfg.train_split, parts.train_loader), (cfg.split, parts.val_loader)):
        if loader.skipped:
            first = next(iter(loader.skipped.values()))
            trainer.say(
                f"{split}: {len(loader.skipped)} images could not be read, the first: {first}",
                "yellow",
            )
    say_where(trainer, result)
    return result


def validate_best(trainer: Trainer, result: TrainResult) -> Any:
    """Return the figures of the best weights when an earlier process of this run made them."""
    parts, device = trainer.parts, trainer.device
    model = load_trained(result.best)
    loader = evaluation_loader(trainer.cfg, parts.val_index, World(), device)
    net, normalize = model.net.to(device), model.config.normalize
    inference = Inference(net, normalize, device, trainer.dtype)
    found, _ = detect(inference, loader, parts.val_index)
    parts.best_detections = found
    return evaluate_boxes(ground_truth(parts.val_index), found, protocol=trainer.protocol)


def say_where(trainer: Trainer, result: TrainResult) -> None:
    """Print the paths of what the run left, and the next commands."""
    trainer.say(f"weights  {result.best}")
    if trainer.cfg.plots:
        trainer.say(f"curves   {trainer.run_dir / 'results.png'}")
        if trainer.parts.best_detections is not None:
            trainer.say(f"pictures {trainer.run_dir / 'val_batch0_pred.jpg'}")
            trainer.say(f"report   {trainer.run_dir / 'report.html'}")
    model, data = (
        shlex.quote(f"{key}={value}")
        for key, value in (("model", result.best), ("data", trainer.cfg.data))
    )
    trainer.say(f"next     rfla val {model} {data}")
    trainer.say(f"         rfla predict {model} source=DIR")
