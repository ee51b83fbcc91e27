"""What a training tells people: lines, `results.csv`, pictures, and at its end `report.html`.

Only the main process writes and prints; where all must take part, it says so.

Shapes: B images of a batch, P points or anchors.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.text import Text
from torch import Tensor, nn

from rfla.cfg import Config
from rfla.cfg.keys import show, value_at
from rfla.data import Annotations, Batch
from rfla.data.annotations import objects_per_image
from rfla.data.object_sizes import shrunk_objects
from rfla.data.record import is_object
from rfla.engine import memory
from rfla.engine.build import RunParts
from rfla.engine.console import (
    Progress,
    duration,
    loss_line,
    make_console,
    metric_line,
)
from rfla.engine.device import device_label
from rfla.engine.distributed import World
from rfla.engine.inference import Judged, prepare_images
from rfla.engine.meter import BatchRecord
from rfla.engine.model_source import training_mode
from rfla.engine.results_csv import ResultsFile, TensorBoard
from rfla.engine.run_dir import state_path, weights_path, writing
from rfla.engine.validation_files import TILES, write_page, write_pictures
from rfla.errors import counted
from rfla.metrics import Metrics, ground_truth, study
from rfla.pictures.boxes import draw_boxes, tile_pictures, write_picture
from rfla.pictures.curves import plot_labels, plot_results
from rfla.version import __version__

LONGEST_VALUE = 300  # letters of a setting, mostly a path, in the line of those that were given
BATCH_PICTURES = 3  # the first batches of a run are drawn


class RunLog:
    """Lines, `results.csv`, pictures and `report.html`.

    Args:
        parts: The run.
        run_dir: Where it writes.
    """

    def __init__(self, parts: RunParts, run_dir: Path) -> None:
        self.parts, self.run_dir, self.world = parts, run_dir, parts.world
        self.console = make_console(quiet=not parts.world.is_main)
        self.progress = Progress(self.console)
        self.results = ResultsFile(run_dir / "results.csv")
        logs = parts.cfg.tensorboard and parts.world.is_main
        self.tensorboard = TensorBoard(run_dir if logs else None)

    def say(self, text: str | Text, style: str | None = None) -> None:
        """Print a line."""
        self.console.print(text, style=style)

    def announce(self) -> None:
        """Print what runs on what, into which directory, and draw the labels."""
        cfg, parts = self.parts.cfg, self.parts
        splits = {cfg.train_split: parts.train_index}
        if cfg.val:
            splits[cfg.split] = parts.val_index
        opening = opening_lines(
            cfg, parts.state.net, splits, parts.device, parts.dtype, parts.world
        )
        self.say("\n".join(opening))
        shrunk = shrunk_objects(parts.train_index, cfg.imgsz)
        if shrunk is not None:
            self.say(f"{cfg.train_split}: {shrunk.line()}", "yellow")
        for note in parts.notes:
            self.say(note, "yellow")
        self.say(f"writing to {self.run_dir}")
        picture = self.run_dir / "labels.png"
        if self.world.is_main and cfg.plots and not (cfg.resume and picture.exists()):
            with writing(self.run_dir, picture):
                draw_labels(picture, parts.train_index)

    def say_position(self) -> None:
        """Print where a resumed run goes on."""
        position, epochs = self.parts.state.position, self.parts.cfg.epochs
        if position.epoch >= epochs:
            self.say(
                f"this run has completed its {epochs} epochs; give a larger epochs= to continue",
                "yellow",
            )
        else:
            step = f"batch {position.batch + 1}"
            if position.batch >= self.parts.batches_per_epoch:
                step = "after its last batch"
            where = f"epoch {position.epoch + 1}, {step}"
            self.say(f"going on from {where} ({state_path(self.run_dir)})")

    def figures(self) -> str:
        """Return loss, speed and the time that the run still needs, for its progress."""
        meter, position = self.parts.state.meter, self.parts.state.position
        total = self.parts.batches_per_epoch
        batches_left = (self.parts.cfg.epochs - position.epoch) * total - position.batch
        left = meter.elapsed / max(meter.batches, 1) * batches_left
        loss = meter.means().get("loss", math.nan)
        return f"loss {loss:.3f}, {meter.images_per_second():.1f} img/s, {duration(left)} left"

    def draw_batch(self, batch: Batch) -> None:
        """Write `train_batchN.jpg` for the first batches of a run; nothing of it changes."""
        cfg, state = self.parts.cfg, self.parts.state
        early = state.position.epoch == 0 and state.position.batch < BATCH_PICTURES
        if not (early and cfg.plots and self.world.is_main):
            return
        path = self.run_dir / f"train_batch{state.position.batch}.jpg"
        batch = batch.to(self.parts.device)
        normalize = self.parts.model_config.normalize
        inputs = prepare_images(batch.images, batch.image_sizes, normalize)
        with writing(self.run_dir, path):
            draw_batch(path, state.net, batch, inputs, self.parts.names)
        training_mode(state.net, cfg.freeze)

    def name_bad_batches(self, bad: Sequence[tuple[BatchRecord, list[str]]]) -> None:
        """Say which batches had a loss or a gradient that was not finite: every process its own."""
        for record, parts in bad:
            rows = record.indices.tolist()[:4]
            images = ", ".join(str(self.parts.train_index.paths[row]) for row in rows)
            process = "" if self.world.is_main else f"process {self.world.rank}: "
            text = f"{process}skipped a step: {', '.join(parts)} not finite; images {images}"
            make_console().print(text, style="red")

    def epoch_row(self, means: Mapping[str, float]) -> dict[str, float]:
        """Return the row of `results.csv` for the training part of the epoch that ends."""
        state, meter = self.parts.state, self.parts.state.meter
        step = max(state.position.iteration - 1, 0)
        base = state.optimizer.defaults["lr"]  # before the factors of biases and backbone
        return {
            "epoch": state.position.epoch + 1,
            "time": state.seconds,
            **{f"train/{name}": value for name, value in means.items()},
            "lr": base * self.parts.schedule.factor(step, state.time_share),
            "images_per_s": meter.images_per_second(),
            "data_wait": meter.wait / max(meter.elapsed, 1e-9),
            "memory_mb": memory.peak_mb(self.parts.device),
            "skipped": meter.skipped,
        }

    def add_epoch(
        self,
        row: Mapping[str, float],
        means: Mapping[str, float],
        metrics: Metrics | None,
        is_best: bool,
    ) -> None:
        """Print the lines of an epoch, and add its row to the table."""
        epoch = self.parts.state.position.epoch
        self.say(loss_line(epoch - 1, self.parts.cfg.epochs, means, row))
        figures = metrics.figures if metrics is not None else {}
        if metrics is not None:
            self.say(metric_line(figures, is_best))
        whole = {**row, **{f"metrics/{name}": value for name, value in figures.items()}}
        with writing(self.run_dir, self.results.path):
            self.results.add(whole)
        self.tensorboard.add(whole, epoch)

    def finish(self, best: Judged | None) -> None:
        """Write the last pictures; print where everything is and what to type next."""
        cfg, parts = self.parts.cfg, self.parts
        if cfg.plots:
            with writing(self.run_dir, self.run_dir):
                self._draw(best)
        if best is not None:
            if cfg.verbose:
                self.console.print(best.metrics.table())
            epoch = parts.state.position.best_epoch
            self.say(f"best AP {best.metrics.ap:.3f} in epoch {epoch}")
        loaders = ((cfg.train_split, parts.train_loader), (cfg.split, parts.val_loader))
        for split, loader in loaders:
            if loader.skipped:
                first = next(iter(loader.skipped.values()))
                count = f"{counted(len(loader.skipped), 'image')} could not be read"
                self.say(f"{split}: {count}, the first: {first}", "yellow")
        has_report = cfg.plots and best is not None
        weights = weights_path(self.run_dir, "best")
        self.say("\n".join(closing_lines(cfg, self.run_dir, weights, has_report)))

    def _draw(self, best: Judged | None) -> None:
        """Write the curves, and the pictures and the page of the best weights."""
        if self.results.rows:
            names = dict.fromkeys(name for row in self.results.rows for name in row)
            columns = {name: self.results.column(name) for name in names}
            plot_results(self.run_dir / "results.png", columns)
        if best is not None:
            index = self.parts.val_index
            self.say("writing the report")
            write_pictures(self.run_dir, index, best.found)
            judged = study(ground_truth(index), best.found, self.parts.protocol)
            write_page(self.parts.cfg, self.run_dir, index, judged)


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
        given = (f"{key}={show(value_at(values, key), LONGEST_VALUE)}" for key in sorted(cfg.given))
        lines.append(f"given: {' '.join(given)}")
    parameters = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    names = next(iter(splits.values())).names
    lines.append(
        f"model {cfg.model}: {cfg.detector} with {cfg.backbone.name}, "
        f"assigner {cfg.assigner.name}, {parameters:.1f} M parameters, "
        f"{counted(len(names), 'class', 'classes')}"
    )
    for split, index in splits.items():
        repairs = "".join(f"; {count} {what}" for what, count in sorted(index.counts.items()))
        lines.append(f"{split}: {index.size()}{repairs}")
    return lines


def draw_labels(path: Path, index: Annotations) -> None:
    """Write `labels.png`: classes, sizes and numbers of the boxes that are learnt."""
    objects, per_image = is_object(index), objects_per_image(index)
    plot_labels(path, index.boxes[objects], index.labels[objects], per_image, index.names)


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
