"""Training: `train(cfg)` makes a run directory, runs the epochs, and leaves weights, curves and pictures.

The loop is `Trainer.fit` and `Trainer.run_epoch`; what happens round it (building, saving, printing) is in the files
beside. Shapes: B images of a batch.
"""

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rfla.cfg import Config
from rfla.data import Batch
from rfla.engine import build, checkpoint, report
from rfla.engine.console import Progressor, ResultsFile, loss_line, make_console, metric_line
from rfla.engine.device import autocast_dtype, select_device
from rfla.engine.distributed import any_of, gather, join_world, leave_world
from rfla.engine.ema import EMA
from rfla.engine.hooks import Hooks
from rfla.engine.interrupt import Interrupt
from rfla.engine.meter import BatchRecord, Meter
from rfla.engine.recipe import settle
from rfla.engine.run_dir import claim_run_dir
from rfla.engine.validator import Speed, detect, ground_truth, prepare_images
from rfla.errors import RflaError
from rfla.metrics import Detections, Metrics, evaluate_boxes
from rfla.models.weights import save_weights

MAX_SKIPPED_IN_A_ROW = 10  # batches with a non-finite loss after which the run stops
READ_EVERY = 20  # batches between two looks at the device's figures


@dataclass
class Position:
    """Where a run is; everything here is in the training state."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch already used
    iteration: int = 0  # optimiser steps since the start
    best_ap: float = -1.0
    best_epoch: int = -1
    skipped_in_a_row: int = 0
    seconds: float = 0.0  # training time before this process


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

    def __init__(self, cfg: Config, parts: build.RunParts, run_dir: Path, hooks: Hooks | None = None):
        self.cfg = cfg
        self.parts = parts
        self.run_dir = run_dir
        self.hooks = hooks or Hooks()
        self.world, self.device = parts.world, parts.device
        self.net: nn.Module = parts.net
        self.model = parts.wrapped  # the same network, compiled or distributed
        self.optimizer, self.schedule = parts.optimizer, parts.schedule
        self.ema = EMA(self.net, cfg.ema) if cfg.ema else None
        self.dtype = autocast_dtype(self.device, cfg.amp)
        # bfloat16 needs no scaling, but the scaler also skips a step with a non-finite gradient without waiting for the GPU.
        scaled = self.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(
            self.device.type,
            init_scale=2.0**16 if scaled else 1.0,
            growth_interval=2000 if scaled else 2**31 - 1,
            enabled=self.device.type == "cuda",
        )
        self.position = Position()
        self.meter = Meter()
        self.console = make_console()
        self.progress = Progressor(self.console, self.is_main)
        self.results = ResultsFile(self.run_dir / "results.csv")
        self.best_metrics: Metrics | None = None
        self.interrupt = Interrupt()
        self.started = time.perf_counter()
        self.saved_at = time.perf_counter()

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.world.is_main

    @property
    def protocol(self) -> str:
        """The rules of the figures: what was given, what the data set names, else AI-TOD's."""
        return self.cfg.protocol or self.parts.spec.protocol or "aitod"

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
            while self.position.epoch < self.cfg.epochs:
                self.hooks.epoch_start(self, self.epoch)
                self.run_epoch()
                figures = self.validate() if self.cfg.val else None
                self.finish_epoch(figures)
                if self.should_stop():
                    break
        except KeyboardInterrupt:
            self.save_state()
            self.save_last()
            self.say(
                f"[yellow]stopped in epoch {self.epoch + 1}; go on with: rfla train resume={self.run_dir}[/yellow]"
            )
            raise
        finally:
            self.interrupt.ignore()
            self.hooks.train_end(self)
        return self.result()

    def run_epoch(self) -> None:
        """Train on every batch of the epoch that is left."""
        position, cfg = self.position, self.cfg
        self.parts.sampler.set_epoch(position.epoch, skip_batches=position.batch)
        self.net.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = self.parts.batches_per_epoch
        clock = time.perf_counter()
        with self.progress.over(total - position.batch, f"epoch {position.epoch + 1}") as bar:
            for batch in self.parts.train_loader:
                self.meter.wait += time.perf_counter() - clock
                losses = self.forward_backward(batch)
                position.batch += 1
                if position.batch % cfg.accumulate == 0 or position.batch == total:
                    self.update()
                self.hooks.batch_end(self, losses)
                bar.step()
                if position.batch % READ_EVERY == 0 or position.batch == total or self.device.type == "cpu":
                    self.look_at_losses(bar)
                if self.time_to_save():
                    self.save_state()
                self.stop_if_interrupted()
                clock = time.perf_counter()

    def forward_backward(self, batch: Batch) -> dict[str, Tensor]:
        """Add the gradients of one batch; return its loss parts."""
        batch = batch.to(self.device, non_blocking=True)
        images = prepare_images(batch, self.parts.model_config.normalize)
        with torch.autocast(self.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None):
            losses: dict[str, Tensor] = self.model(images, batch.targets, image_sizes=batch.image_sizes)
        loss = torch.stack(list(losses.values())).sum()
        self.scaler.scale(loss / self.cfg.accumulate).backward()
        self.meter.add(losses | {"loss": loss} | self.net.statistics)  # type: ignore[operator]
        self.meter.recent.append(BatchRecord(batch.indices, {name: part.detach() for name, part in losses.items()}))
        self.meter.batches += 1
        self.meter.images += len(batch.indices) * self.world.size
        return losses

    def update(self) -> None:
        """Take one optimiser step at the schedule's learning rate."""
        factor = self.schedule.factor(self.position.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.parts.trainable, self.cfg.clip_grad or math.inf)
        # Without a scaler (CPU) a non-finite gradient is seen here; with one, `step` leaves the weights alone.
        if self.scaler.is_enabled() or bool(torch.isfinite(norm)):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.net)
        self.meter.add({"grad_norm": norm})
        self.meter.updates += 1
        self.position.iteration += 1

    # ------------------------------------------------------------------ after an epoch

    def evaluated_net(self) -> nn.Module:
        """Return the network that is validated and saved: the averaged one if there is one."""
        return self.ema.net if self.ema is not None else self.net

    def validate(self) -> Metrics | None:
        """Run the evaluated network over the validation split; the main process returns the figures."""
        parts = self.parts
        with self.progress.over(len(parts.val_index), "validate") as bar:

            def done(count: int) -> None:
                bar.step(count)
                self.stop_if_interrupted()

            detections, speed = detect(
                self.evaluated_net(), parts.val_loader, parts.val_index, parts.model_config.normalize,
                self.device, self.dtype, progress=done,
            )  # fmt: skip
        shards: list[tuple[Detections, Speed]] = gather(self.world, (detections, speed))
        if not self.is_main:
            return None
        merged = build.merge_detections([shard for shard, _ in shards])
        self.parts.last_detections = merged
        return evaluate_boxes(
            ground_truth(parts.val_index),
            merged,
            protocol=self.protocol,
            sizes=parts.spec.sizes,
        )

    def finish_epoch(self, metrics: Metrics | None) -> None:
        """Print, write the row, save the weights and the state, and move to the next epoch."""
        position = self.position
        means = self.meter.means()
        row = self.epoch_row(means)
        position.epoch, position.batch = position.epoch + 1, 0
        if metrics is not None:
            self.hooks.val_end(self, metrics)
        if self.is_main:
            self.say(loss_line(position.epoch - 1, self.cfg.epochs, means, row))
            better = metrics is not None and metrics.ap > position.best_ap
            if metrics is not None:
                figures = {name: value for name, value in metrics.as_dict().items() if isinstance(value, float)}
                row |= {f"metrics/{name}": value for name, value in figures.items()}
                self.say(metric_line(figures, better))
            self.results.add(row)
            if better or not self.cfg.val:
                position.best_ap = metrics.ap if metrics is not None else -1.0
                position.best_epoch = position.epoch
                self.best_metrics = metrics
                self.save_weights("best", metrics)
            self.save_last(metrics)
            if self.cfg.save_period > 0 and position.epoch % self.cfg.save_period == 0:
                self.save_weights(f"epoch{position.epoch}", metrics)
        self.meter = Meter()
        self.save_state()

    def epoch_row(self, means: dict[str, float]) -> dict[str, float]:
        """Return the row of `results.csv` for the training part of an epoch."""
        memory = torch.cuda.max_memory_allocated(self.device) / 2**20 if self.device.type == "cuda" else 0.0
        return {
            "epoch": self.position.epoch + 1,
            "time": self.seconds(),
            **{f"train/{name}": value for name, value in means.items()},
            "lr": self.optimizer.param_groups[0]["lr"],
            "images_per_s": self.meter.images_per_second(),
            "data_wait": self.meter.wait / max(self.meter.elapsed, 1e-9),
            "memory_mb": memory,
            "skipped": self.meter.skipped,
        }

    def should_stop(self) -> bool:
        """Whether patience or the time limit ends the run here; says so."""
        position, cfg = self.position, self.cfg
        late = cfg.time is not None and self.seconds() > cfg.time * 3600
        stale = bool(cfg.patience) and position.epoch - position.best_epoch >= cfg.patience
        stop = any_of(self.world, (late or stale) and position.epoch < cfg.epochs, self.device)
        if stop:
            why = f"time={cfg.time} h is over" if late else f"no better AP for {cfg.patience} epochs"
            self.say(f"[yellow]stopping after epoch {position.epoch}: {why}[/yellow]")
        return stop

    # ------------------------------------------------------------------ health

    def stop_if_interrupted(self) -> None:
        """End the run here if somebody asked for it; between optimiser steps only, where the state is whole.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM came since the last call.
        """
        if self.position.batch % self.cfg.accumulate:
            return
        if self.world.size == 1 or self.position.batch % READ_EVERY == 0:
            if any_of(self.world, self.interrupt.asked, self.device):
                raise KeyboardInterrupt

    def look_at_losses(self, bar: Progressor) -> None:
        """Show the mean loss, and name the batches since the last look whose loss was not finite.

        Raises:
            RflaError: Too many in a row; the last good weights are kept.
        """
        for record in self.meter.recent:
            bad = [name for name, part in record.losses.items() if not bool(torch.isfinite(part))]
            if not bad:
                self.position.skipped_in_a_row = 0
                continue
            self.meter.skipped += 1
            self.position.skipped_in_a_row += 1
            paths = [str(self.parts.train_index.paths[i]) for i in record.indices.tolist()[:4]]
            self.say(f"[red]skipped a batch: {', '.join(bad)} not finite; images {', '.join(paths)}[/red]")
        self.meter.recent.clear()
        bar.step(0, f"epoch {self.epoch + 1} loss {self.meter.means().get('loss', math.nan):.3f}")
        if self.position.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise RflaError(
                f"the loss was not finite in {MAX_SKIPPED_IN_A_ROW} batches in a row; the last good weights are in "
                f"{self.run_dir / 'weights'}; try a lower lr0= or clip_grad="
            )

    def seconds(self) -> float:
        """Training time so far, earlier processes of the same run included."""
        return self.position.seconds + time.perf_counter() - self.started

    def say(self, text: str) -> None:
        """Print one line, in the main process."""
        if self.is_main:
            self.console.print(text)

    # ------------------------------------------------------------------ files

    def time_to_save(self) -> bool:
        """Whether `save_minutes` have passed; only at optimiser steps, where no gradient is half added."""
        minutes = self.cfg.save_minutes
        between_steps = self.position.batch % self.cfg.accumulate == 0
        due = bool(minutes) and between_steps and time.perf_counter() - self.saved_at > 60 * minutes
        return any_of(self.world, due, self.device) if minutes and between_steps else False

    def save_weights(self, name: str, metrics: Metrics | None) -> Path:
        """Write `weights/<name>.safetensors`: the evaluated weights, and what rebuilds the model from them."""
        path = self.run_dir / "weights" / f"{name}.safetensors"
        figures = metrics.as_dict() if metrics is not None else {}
        run = {"data": str(self.cfg.data), "epoch": self.position.epoch, "seed": self.cfg.seed}
        metadata = build.weights_metadata(self.parts.model_config, self.parts.names, self.cfg.imgsz, figures, run)
        save_weights(path, self.evaluated_net().state_dict(), metadata)
        self.hooks.checkpoint(self, path)
        return path

    def save_last(self, metrics: Metrics | None = None) -> None:
        """Write `weights/last.safetensors`, and `best` too if there is none yet."""
        if not self.is_main:
            return
        self.save_weights("last", metrics)
        if not (self.run_dir / "weights" / "best.safetensors").exists():
            self.save_weights("best", metrics)

    def save_state(self) -> None:
        """Write everything that a resumed run needs, in one file."""
        self.saved_at = time.perf_counter()
        if not self.is_main:
            return
        tensors = checkpoint.prefixed("model", self.net.state_dict())
        tensors |= checkpoint.prefixed("optimizer", checkpoint.optimizer_tensors(self.optimizer))
        tensors |= checkpoint.prefixed("random", checkpoint.random_tensors())
        tensors |= checkpoint.prefixed("meter", self.meter.sums)
        if self.ema is not None:
            tensors |= checkpoint.prefixed("ema", self.ema.net.state_dict())
        document = {
            "position": asdict(self.position) | {"seconds": self.seconds()},
            "meter": self.meter.document(),
            "random": checkpoint.random_document(),
            "scaler": self.scaler.state_dict(),
            "ema_updates": self.ema.updates if self.ema is not None else 0,
        }
        checkpoint.save_state(self.run_dir / "weights" / checkpoint.STATE_NAME, tensors, document)

    def restore(self, path: Path) -> None:
        """Go on from a state file.

        Raises:
            WeightsError: It is damaged, with none before it, or made by another model.
        """
        tensors, document, warning = checkpoint.load_latest_state(path)
        if warning:
            self.say(f"[yellow]{warning}[/yellow]")
        checkpoint.restore_module(self.net, checkpoint.without_prefix("model", tensors), path)
        checkpoint.restore_optimizer(self.optimizer, checkpoint.without_prefix("optimizer", tensors))
        if self.ema is not None:
            checkpoint.restore_module(self.ema.net, checkpoint.without_prefix("ema", tensors), path)
            self.ema.updates = document["ema_updates"]
        self.scaler.load_state_dict(document["scaler"])
        self.position = Position(**document["position"])
        sums = {name: sum_.to(self.device) for name, sum_ in checkpoint.without_prefix("meter", tensors).items()}
        self.meter = Meter(sums=sums, **document["meter"])
        checkpoint.restore_random(checkpoint.without_prefix("random", tensors), document["random"])
        self.results.load(self.position.epoch)
        self.say(f"going on from epoch {self.epoch + 1}, batch {self.position.batch + 1} ({path})")

    def result(self) -> TrainResult:
        """Return the paths and the best figures."""
        weights = self.run_dir / "weights"
        return TrainResult(self.run_dir, weights / "best.safetensors", weights / "last.safetensors", self.best_metrics)


def train(cfg: Config, hooks: Hooks | None = None) -> TrainResult:
    """Train as `rfla train` does.

    Args:
        cfg: Settings (`rfla.cfg.load_config`).
        hooks: A person's own code at six moments.

    Raises:
        RflaError: Anything that the person can mend, in one line.
    """
    device = select_device(cfg.device)
    cfg, notes = settle(cfg, device)
    world = join_world(device)
    try:
        parts = build.build_run(cfg, world, device)
        parts.notes += notes
        with claim_run_dir(cfg, world, "train") as run_dir:
            trainer = Trainer(cfg, parts, run_dir, hooks)
            report.announce(trainer)
            if cfg.resume:
                trainer.restore(run_dir / "weights" / checkpoint.STATE_NAME)
            result = trainer.fit()
            if trainer.is_main:
                report.finish(trainer, result)
            return result
    finally:
        leave_world(world)
