"""What a training run writes and says: weights and state, lines, the table and pictures.

Only the main process writes and prints; where all must take part, it says so.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.text import Text

from rfla.cfg.document import to_yaml
from rfla.data import Batch
from rfla.data.input_sizes import shrunk_objects, trained_scale
from rfla.engine import memory, report
from rfla.engine.build import RunParts, training_mode
from rfla.engine.console import (
    Progress,
    ResultsFile,
    TensorBoard,
    duration,
    loss_line,
    make_console,
    metric_line,
)
from rfla.engine.distributed import mean_of
from rfla.engine.hooks import Hooks, Run
from rfla.engine.inference import Judged, prepare_images
from rfla.engine.meter import BatchRecord
from rfla.engine.model_source import weights_metadata
from rfla.engine.run_dir import state_path, weights_path, writing
from rfla.files import write_atomically
from rfla.metrics import Metrics, ground_truth, study
from rfla.models.weights import save_weights
from rfla.pictures.curves import plot_results


class RunFiles:
    """Weights, state and settings in a run's directory.

    Args:
        parts: The run.
        run: Its directory, for the hooks.
        hooks: Told of each weights file.
    """

    def __init__(self, parts: RunParts, run: Run, hooks: Hooks) -> None:
        self.parts, self.run, self.hooks = parts, run, hooks
        self.run_dir, self.world = run.run_dir, parts.world
        self.state_written_at = time.perf_counter()

    def write_weights(self, name: str, metrics: Metrics | None) -> None:
        """Write `weights/<name>.safetensors`: evaluated weights, and what rebuilds the model."""
        parts, path = self.parts, weights_path(self.run_dir, name)
        figures = metrics.figures if metrics is not None else {}
        run = {
            "data": str(parts.cfg.data),
            "epoch": parts.state.position.epoch,
            "seed": parts.cfg.seed,
        }
        cfg = parts.cfg
        scale = trained_scale(parts.train_index, cfg.imgsz, cfg.gsd)
        metadata = weights_metadata(parts.model_config, parts.names, cfg.imgsz, figures, run, scale)
        with writing(self.run_dir, path):
            save_weights(path, parts.state.evaluated_net.state_dict(), metadata)
        self.hooks.checkpoint(self.run, path)

    def write_last(self, metrics: Metrics | None = None) -> None:
        """Write `weights/last.safetensors`, and `best` too where no epoch is best yet."""
        if not self.world.is_main:
            return
        self.write_weights("last", metrics)
        # With exist_ok=true a file of another run may be there.
        found = weights_path(self.run_dir, "best").exists()
        if not (found and self.parts.state.position.best_epoch):
            self.write_weights("best", metrics)

    def write_state(self) -> None:
        """Write everything that a resumed run needs. All processes call this."""
        self.state_written_at = time.perf_counter()
        state, path = self.parts.state, state_path(self.run_dir)
        sums = mean_of(self.world, state.meter.sums)
        if self.world.is_main:
            with writing(self.run_dir, path):
                state.save(path, sums, self.parts.identity)

    def write_settings(self) -> None:
        """Write `args.yaml` again, with settings that have changed."""
        path = self.run_dir / "args.yaml"
        if self.world.is_main:
            with writing(self.run_dir, path):
                write_atomically(path, to_yaml(self.parts.cfg))

    def restore(self) -> str | None:
        """Go on from the state; return a warning for the person. All processes call this.

        Raises:
            WeightsError: There is none, it is damaged, or made by another model or other data.
        """
        parts, path = self.parts, state_path(self.run_dir)
        return parts.state.restore(path, parts.identity, parts.device)


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
        opening = report.opening_lines(
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
                report.draw_labels(picture, parts.train_index)

    def say_position(self) -> None:
        """Print where a resumed run goes on."""
        position, epochs = self.parts.state.position, self.parts.cfg.epochs
        if position.epoch >= epochs:
            self.say(
                f"this run has done its {epochs} epochs; epochs= with more would go on", "yellow"
            )
        else:
            where = f"epoch {position.epoch + 1}, batch {position.batch + 1}"
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
        early = state.position.epoch == 0 and state.position.batch < report.BATCH_PICTURES
        if not (early and cfg.plots and self.world.is_main):
            return
        path = self.run_dir / f"train_batch{state.position.batch}.jpg"
        batch = batch.to(self.parts.device)
        normalize = self.parts.model_config.normalize
        inputs = prepare_images(batch.images, batch.image_sizes, normalize)
        with writing(self.run_dir, path):
            report.draw_batch(path, state.net, batch, inputs, self.parts.names)
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
        base = state.optimizer.param_groups[0]["base_lr"]
        return {
            "epoch": state.position.epoch + 1,
            "time": state.seconds,
            **{f"train/{name}": value for name, value in means.items()},
            "lr": base * self.parts.schedule.factor(step),
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
                count = f"{len(loader.skipped)} images could not be read"
                self.say(f"{split}: {count}, the first: {first}", "yellow")
        has_report = cfg.plots and best is not None
        weights = weights_path(self.run_dir, "best")
        self.say("\n".join(report.closing_lines(cfg, self.run_dir, weights, has_report)))

    def _draw(self, best: Judged | None) -> None:
        """Write the curves, and the pictures and the page of the best weights."""
        if self.results.rows:
            names = dict.fromkeys(name for row in self.results.rows for name in row)
            columns = {name: self.results.column(name) for name in names}
            plot_results(self.run_dir / "results.png", columns)
        if best is not None:
            index = self.parts.val_index
            self.say("writing the report")
            report.write_pictures(self.run_dir, index, best.found)
            judged = study(ground_truth(index), best.found, self.parts.protocol)
            report.write_page(self.parts.cfg, self.run_dir, index, judged)
