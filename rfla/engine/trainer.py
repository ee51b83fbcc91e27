"""Training: `train(cfg)` makes a run directory, runs the epochs, and leaves weights, curves and pictures.

The loop is `Trainer.fit` and `Trainer.run_epoch`; what happens round it (building, saving,
printing, memory) is in the files beside. Shapes: B images of a batch.
"""

import math
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.text import Text
from torch import Tensor, nn

from rfla.cfg import Config
from rfla.cfg.keys import show
from rfla.data import Batch
from rfla.engine import build, checkpoint, health, launch, memory, report
from rfla.engine.console import Progressor, ResultsFile, loss_line, make_console, metric_line
from rfla.engine.device import autocast, autocast_dtype, precision_holds, select_device
from rfla.engine.distributed import agreed, any_of, gather, join_world, lost_peer, mean_of
from rfla.engine.ema import EMA
from rfla.engine.hooks import Hooks
from rfla.engine.inference import Inference, Speed, detect, merge_detections, prepare_images
from rfla.engine.interrupt import Interrupt, Stopped
from rfla.engine.loaders import batches_of, lost_worker
from rfla.engine.meter import BatchRecord, Meter
from rfla.engine.multi_scale import rescale, scaled_size
from rfla.engine.position import Position
from rfla.engine.recipe import settle
from rfla.engine.run_dir import claim_run_dir
from rfla.engine.tensorboard import TensorBoard
from rfla.engine.training_state import (
    how_to_go_on,
    restore,
    write_last,
    write_settings,
    write_state,
    write_weights,
    writing,
)
from rfla.engine.validator import ground_truth, protocol_of
from rfla.errors import DataError, RflaError
from rfla.metrics import Detections, Metrics, evaluate_boxes
from rfla.metrics.protocols import Protocol

READ_EVERY = 20  # optimiser steps between two looks at a GPU's figures; a CPU has no reason to wait


@dataclass(frozen=True)
class TrainResult:
    """What a run left.

    Attributes:
        run_dir: Its directory.
        best: Weights of the epoch with the highest AP.
        last: Weights at the end.
        metrics: Figures of the best weights, None where nothing was validated.
    """

    run_dir: Path
    best: Path
    last: Path
    metrics: Metrics | None


class Trainer:
    """One run, from its settings to its last file."""

    def __init__(
        self, cfg: Config, parts: build.RunParts, run_dir: Path, hooks: Hooks | None = None
    ):
        self.cfg = cfg
        self.parts = parts
        self.run_dir = run_dir
        self.hooks = hooks or Hooks()
        self.world, self.device = parts.world, parts.device
        self.net: nn.Module = parts.net
        self.model = build.distribute(
            parts.net, parts.world, parts.device
        )  # the same, as each step calls it
        self.optimizer, self.schedule = parts.optimizer, parts.schedule
        self.ema = EMA(self.net, cfg.ema) if cfg.ema else None
        self.console = make_console()
        self.dtype = autocast_dtype(self.device, cfg.amp)
        if self.dtype is not None and not precision_holds(self.net, self.device, self.dtype):
            self.say(
                f"amp: {self.dtype} gives other outputs than float32 here; training in float32",
                "yellow",
            )
            self.dtype = None
        if (
            cfg.compile
        ):  # only now: the copies stay as they are, and the check above had images of another size
            build.compile_parts(self.net)
        # bfloat16 needs no scaling, but the scaler also skips a bad step without waiting for the
        # GPU.
        self.scaler = torch.amp.GradScaler(
            self.device.type,
            init_scale=2.0**16 if self.dtype == torch.float16 else 1.0,
            enabled=self.device.type == "cuda",
        )
        self.position = Position()
        self.meter = Meter()
        self.progress = Progressor(self.console, self.is_main)
        self.results = ResultsFile(self.run_dir / "results.csv")
        self.tensorboard = TensorBoard(self.run_dir if cfg.tensorboard and self.is_main else None)
        self.best_metrics: Metrics | None = None
        self.statistics = health.RunningStatistics(self.net)
        self.first_epoch = 0  # of this process
        self.interrupt = Interrupt()
        self.out_of_time = False
        self.started = self.saved_at = time.perf_counter()

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.world.is_main

    @property
    def protocol(self) -> Protocol:
        """The rules of the figures."""
        return protocol_of(self.cfg, self.parts.spec)

    @property
    def epoch(self) -> int:
        """The current epoch, from 0."""
        return self.position.epoch

    # ------------------------------------------------------------------ the loop

    def fit(self) -> TrainResult:
        """Run every epoch that is left."""
        self.hooks.train_start(self)
        self.interrupt.listen()
        try:
            while self.epoch < self.cfg.epochs and not self.should_stop():
                self.hooks.epoch_start(self, self.epoch)
                try:
                    self.run_epoch()
                except RuntimeError as error:
                    memory.use_smaller_batches(self, error)
                    continue
                self.finish_epoch(self.validate() if self.cfg.val else None)
        except Stopped:
            write_state(self)
            write_last(self)
            self.say(f"stopped in epoch {self.epoch + 1}; {how_to_go_on(self.run_dir)}", "yellow")
            raise
        finally:
            self.interrupt.ignore()
            self.hooks.train_end(self)
            self.tensorboard.close()
        return self.result()

    def run_epoch(self) -> None:
        """Train on every batch of the epoch that is left."""
        position, total = self.position, self.parts.batches_per_epoch
        self.parts.sampler.set_epoch(position.epoch, skip_batches=position.batch)
        build.training_mode(self.net, self.cfg.freeze)
        self.statistics = health.RunningStatistics(self.net)
        self.optimizer.zero_grad(set_to_none=True)
        clock = time.perf_counter()
        with self.progress.over(total - position.batch, f"epoch {position.epoch + 1}") as bar:
            for batch in batches_of(self.parts.train_loader):
                self.meter.wait += time.perf_counter() - clock
                first, last = self.group(total)
                losses = self.forward_backward(
                    batch, share=1 / (last - first), is_last=position.batch + 1 == last
                )
                position.batch += 1
                if position.batch == last:
                    self.update()
                self.hooks.batch_end(self, losses)
                bar.step()
                if position.batch == last and self.time_to_look(total):
                    self.look(bar)
                    if self.out_of_time:
                        break
                clock = time.perf_counter()
        self.meter.stop()

    def group(self, total: int) -> tuple[int, int]:
        """Return the batches, first and one past the last, that the current one shares an optimiser step with."""
        first = self.position.batch // self.cfg.accumulate * self.cfg.accumulate
        return first, min(first + self.cfg.accumulate, total)

    def forward_backward(self, batch: Batch, share: float, is_last: bool) -> dict[str, Tensor]:
        """Add the gradients of one batch; return its loss parts.

        Args:
            batch: From the loader.
            share: Of this batch in its optimiser step.
            is_last: Whether the step follows; only then do distributed processes exchange
                gradients.
        """
        batch = batch.to(self.device, non_blocking=True)
        if (
            self.is_main
            and self.cfg.plots
            and self.epoch == 0
            and self.position.batch < report.BATCH_PICTURES
        ):
            with writing(self.run_dir, self.run_dir / "train_batch*.jpg"):
                report.write_batch_picture(self, batch)
        images = prepare_images(batch.images, batch.image_sizes, self.parts.model_config.normalize)
        sizes, targets = batch.image_sizes, batch.targets
        if self.cfg.multi_scale:
            size = scaled_size(
                self.cfg.imgsz,
                self.cfg.multi_scale,
                (self.cfg.seed, self.epoch, self.position.batch),
            )
            images, sizes, targets = rescale(images, sizes, targets, size / self.cfg.imgsz)
        # type: ignore[operator]
        quiet = nullcontext() if is_last or self.world.size == 1 else self.model.no_sync()
        self.statistics.keep()
        with quiet:
            with autocast(self.device, self.dtype):
                losses: dict[str, Tensor] = self.model(images, targets, image_sizes=sizes)
            loss = torch.stack(list(losses.values())).sum()
            self.scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]
        self.statistics.take_back_unless(loss.detach().isfinite())
        self.meter.add(losses | {"loss": loss} | self.net.statistics)  # type: ignore[operator]
        self.meter.recent.append(
            BatchRecord(batch.indices, {name: part.detach() for name, part in losses.items()})
        )
        self.meter.batches += 1
        self.meter.images += len(batch.indices) * self.world.size
        return losses

    def update(self) -> None:
        """Take one optimiser step at the schedule's learning rate.

        None where the gradient is not finite.
        """
        factor = self.schedule.factor(self.position.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parts.trainable, self.cfg.clip_grad or math.inf)
        # Without a scaler (CPU) a bad gradient is seen here; with one, the fused step itself leaves
        # the weights alone.
        if self.scaler.is_enabled() or bool(torch.isfinite(norm)):
            self.scaler.step(self.optimizer)
        self.scaler.update(None if self.dtype == torch.float16 else 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()
        self.meter.recent[-1].parts["gradient"] = norm.detach()
        self.meter.add({"grad_norm": norm})
        self.meter.updates += 1
        self.position.iteration += 1

    # ------------------------------------------------------------------ between two steps

    def time_to_look(self, total: int) -> bool:
        """Whether to wait for the device now: now and then on a GPU, always on a CPU, and at the end of the epoch."""
        ends = self.position.batch == total
        return self.device.type == "cpu" or ends or self.position.iteration % READ_EVERY == 0

    def look(self, bar: Progressor) -> None:
        """Read the figures of the device, save if it is time, and end the run if it must.

        All processes together.

        Raises:
            Stopped: Ctrl-C or SIGTERM came.
            RflaError: Too many batches in a row were not finite.
        """
        health.name_bad_batches(self)
        bar.step(0, f"epoch {self.epoch + 1} loss {self.meter.means().get('loss', math.nan):.3f}")
        since_save = time.perf_counter() - self.saved_at
        due = bool(self.cfg.save_minutes) and since_save > 60 * self.cfg.save_minutes
        late = self.cfg.time is not None and self.seconds() > self.cfg.time * 3600
        stuck = self.position.skipped_in_a_row >= health.MAX_SKIPPED_IN_A_ROW
        flags = (self.interrupt.asked, stuck, late, due)
        asked, stuck, self.out_of_time, due = any_of(self.world, flags, self.device)
        if stuck:
            health.give_up(self)
        if due:
            write_state(self)
        if asked:
            raise Stopped

    def seconds(self) -> float:
        """Training time so far, earlier processes of the same run included."""
        return self.position.seconds + time.perf_counter() - self.started

    def say(self, text: str | Text, style: str | None = None) -> None:
        """Print one line, in the main process."""
        if self.is_main:
            self.console.print(text, style=style)

    # ------------------------------------------------------------------ after an epoch

    def evaluated_net(self) -> nn.Module:
        """Return the network that is validated and saved: the averaged one if there is one."""
        return self.ema.net if self.ema is not None else self.net

    def validate(self) -> Metrics | None:
        """Run the evaluated network over the validation split.

        The main process returns the figures.
        """
        parts = self.parts
        shard: tuple[Detections, Speed] | None = None
        with self.progress.over(len(parts.val_index), "validate") as bar, suppress(Stopped):

            def done(count: int) -> None:
                bar.step(count)
                if self.interrupt.asked:
                    raise Stopped

            normalize = parts.model_config.normalize
            inference = Inference(self.evaluated_net(), normalize, self.device, self.dtype)
            shard = detect(inference, parts.val_loader, parts.val_index, progress=done)
        if any_of(self.world, (self.interrupt.asked,), self.device)[0]:
            raise Stopped
        shards = gather(self.world, shard)
        if not self.is_main:
            return None
        found = self.parts.last_detections = merge_detections(
            [one[0] for one in shards if one is not None]
        )
        truths = ground_truth(parts.val_index)
        return evaluate_boxes(truths, found, protocol=self.protocol)

    def finish_epoch(self, metrics: Metrics | None) -> None:
        """Print, write the row, save the weights and the state, and move to the next epoch."""
        position = self.position
        self.meter.sums = mean_of(self.world, self.meter.sums)
        means = self.meter.means()
        row = self.epoch_row(means)
        position.epoch, position.batch = position.epoch + 1, 0
        if self.is_main:
            self.say(loss_line(position.epoch - 1, self.cfg.epochs, means, row))
            better = metrics is not None and (
                metrics.ap > position.best_ap or not position.best_epoch
            )
            if metrics is not None:
                self.hooks.val_end(self, metrics)
                row |= {f"metrics/{name}": value for name, value in metrics.figures.items()}
                self.say(metric_line(metrics.figures, better))
            with writing(self.run_dir, self.results.path):
                self.results.add(row)
            self.tensorboard.add(row, position.epoch)
            if better or not self.cfg.val:
                position.best_ap = metrics.ap if metrics is not None else -1.0
                position.best_epoch = position.epoch
                self.best_metrics, self.parts.best_detections = metrics, self.parts.last_detections
                write_weights(self, "best", metrics)
            write_last(self, metrics)
            if self.cfg.save_period > 0 and position.epoch % self.cfg.save_period == 0:
                write_weights(self, f"epoch{position.epoch}", metrics)
        self.meter = Meter()
        write_state(self)

    def epoch_row(self, means: dict[str, float]) -> dict[str, float]:
        """Return the row of `results.csv` for the training part of an epoch."""
        return {
            "epoch": self.epoch + 1,
            "time": self.seconds(),
            **{f"train/{name}": value for name, value in means.items()},
            "lr": self.optimizer.param_groups[0]["base_lr"]
            * self.schedule.factor(max(self.position.iteration - 1, 0)),
            "images_per_s": self.meter.images_per_second(),
            "data_wait": self.meter.wait / max(self.meter.elapsed, 1e-9),
            "memory_mb": memory.peak_mb(self.device),
            "skipped": self.meter.skipped,
        }

    def should_stop(self) -> bool:
        """Whether patience or the time limit ends the run before its next epoch; says so."""
        position, cfg = self.position, self.cfg
        stale = (
            self.is_main
            and bool(cfg.patience)
            and position.epoch - position.best_epoch >= cfg.patience
        )
        stale = any_of(self.world, (stale,), self.device)[0]
        if not (stale or self.out_of_time):
            return False
        why = (
            f"time={show(cfg.time)} h is over"
            if self.out_of_time
            else f"no better AP for {cfg.patience} epochs"
        )
        self.say(f"stopping after epoch {position.epoch}: {why}", "yellow")
        return True

    def result(self) -> TrainResult:
        """Return the paths and the best figures."""
        weights = self.run_dir / "weights"
        return TrainResult(
            self.run_dir,
            weights / "best.safetensors",
            weights / "last.safetensors",
            self.best_metrics,
        )


def train(cfg: Config, hooks: Hooks | None = None) -> TrainResult:
    """Train as `rfla train` does.

    Args:
        cfg: Settings (`rfla.cfg.load_config`).
        hooks: A person's own code at six moments.

    Raises:
        RflaError: Anything that the person can mend, in one line.
    """
    if launch.is_needed(cfg.device):
        run_dir = launch.train_on_several(cfg, hooks)
        weights = run_dir / "weights"
        return TrainResult(
            run_dir, weights / "best.safetensors", weights / "last.safetensors", None
        )
    device = select_device(cfg.device)
    cfg, notes = settle(cfg, device)
    world = join_world(device)
    place: Path | None = None
    try:
        parts = build.build_run(cfg, world, device)
        parts.notes += notes
        with claim_run_dir(parts.cfg, world, "train") as run_dir:
            place = run_dir
            trainer = Trainer(parts.cfg, parts, run_dir, hooks)
            with writing(run_dir, run_dir):
                report.announce(trainer)
            if cfg.resume:
                with agreed(world):
                    restore(trainer, run_dir / "weights" / checkpoint.STATE_NAME)
                    write_settings(trainer)
            result = trainer.fit()
            with writing(run_dir, run_dir):
                return report.finish(trainer, result) if trainer.is_main else result
    except DataError as error:  # the disk of the images has gone: it may come back
        raise DataError(f"{error}; {how_to_go_on(place)}" if place else str(error)) from None
    except RuntimeError as error:
        if memory.ran_out(error):
            raise RflaError(
                f"out of memory with batch={cfg.batch}: use a smaller batch= or imgsz="
            ) from error
        lost = lost_worker(error) or (
            "another process of this run has died" if lost_peer(world, error) else ""
        )
        if lost:
            raise RflaError(f"{lost}; {how_to_go_on(place) if place else 'begin anew'}") from None
        raise
