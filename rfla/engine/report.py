"""What a training run tells people: its opening lines, its pictures, and where everything is at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

import rfla
from rfla.data import Batch, BoxIndex
from rfla.engine.device import device_label
from rfla.engine.val_files import write_pictures
from rfla.pictures.boxes import draw_boxes, tile_pictures
from rfla.pictures.curves import plot_labels, plot_results

if TYPE_CHECKING:
    from rfla.engine.trainer import Trainer, TrainResult

TILES = 4  # images in a picture of a training batch


def announce(trainer: Trainer) -> None:
    """Print what runs on what, into which directory."""
    parts, cfg = trainer.parts, trainer.cfg
    parameters = sum(parameter.numel() for parameter in parts.net.parameters()) / 1e6
    trainer.say(f"rfla {rfla.__version__}, torch {torch.__version__}, {device_label(trainer.device)}")
    for note in parts.notes:
        trainer.say(f"[yellow]{note}[/yellow]")
    trainer.say(
        f"model {cfg.model}: {cfg.detector} with {cfg.backbone.name}, assigner {cfg.assigner.name}, "
        f"{parameters:.1f} M parameters, {len(parts.names)} classes"
    )
    for split, index in (("train", parts.train_index), (cfg.split, parts.val_index)):
        trainer.say(f"{split}: {len(index)} images, {len(index.boxes)} boxes{counted(index)}")
    trainer.say(f"writing to {trainer.run_dir}")
    if trainer.is_main and cfg.plots:
        index = parts.train_index
        real = ~(index.ignore | index.crowd)
        plot_labels(
            trainer.run_dir / "labels.png", index.boxes[real], index.labels[real], np.diff(index.box_start), parts.names
        )


def counted(index: BoxIndex) -> str:
    """Return what was dropped or repaired while reading, in words."""
    return "".join(f"; {count} {reason}" for reason, count in sorted(index.counts.items()))


def draw_batch(batch: Batch, names: tuple[str, ...]) -> np.ndarray:
    """Return a picture of a training batch with its boxes."""
    tiles = []
    for image, (height, width), target in zip(batch.images[:TILES], batch.image_sizes, batch.targets, strict=False):
        pixels = image[:, :height, :width].permute(1, 2, 0).cpu().numpy()
        tiles.append(draw_boxes(pixels, target["boxes"].cpu().numpy(), target["labels"].cpu().numpy(), names))
    return tile_pictures(tiles)


def finish(trainer: Trainer, result: TrainResult) -> None:
    """Write the last pictures, and print where everything is and what to type next."""
    if trainer.cfg.plots:
        results = trainer.results
        columns = {name: results.column(name) for name in dict.fromkeys(key for row in results.rows for key in row)}
        plot_results(trainer.run_dir / "results.png", columns)
        if trainer.parts.last_detections is not None:
            write_pictures(trainer.run_dir, trainer.parts.val_index, trainer.parts.last_detections)
    if result.metrics is not None:
        if trainer.cfg.verbose:
            trainer.console.print(result.metrics.table())
        trainer.say(f"best AP {result.metrics.ap:.3f} in epoch {trainer.position.best_epoch}")
    trainer.say(f"weights  {result.best}")
    if trainer.cfg.plots:
        trainer.say(f"curves   {trainer.run_dir / 'results.png'}")
        trainer.say(f"pictures {trainer.run_dir / 'val_batch0_pred.jpg'}")
    trainer.say(f"next     rfla val model={result.best} data={trainer.cfg.data}")
    trainer.say(f"         rfla predict model={result.best} source=DIR")
