"""Training: `train(cfg)` makes a run directory, runs the epochs, leaves weights, curves, pictures.

Read it from the top: `train` builds the parts, `Trainer.fit` runs the epochs, `train_epoch` one of
them, `after_step` and `finish_epoch` are what happens between. A step is in `step.py`, the
validation of an epoch in `validator.py`, which epoch is best in `state.py`, what is written and
printed in `run_files.py` and `run_log.py`.
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rfla.cfg import Config
from rfla.cfg.keys import show
from rfla.engine import memory, processes
from rfla.engine.build import RunParts, build_run, fill_in
from rfla.engine.device import select_device
from rfla.engine.distributed import (
    LostPeerError,
    PeerWatch,
    agreed,
    gather,
    join_world,
    largest_of,
    lost_peers_named,
    mean_of,
)
from rfla.engine.field_measurement import measure_for_all, shown
from rfla.engine.hooks import Hooks, Run, Stopped, StopSignals
from rfla.engine.inference import Judged
from rfla.engine.loaders import batches_of, lost_workers_named
from rfla.engine.meter import MAX_SKIPPED_IN_A_ROW, Meter, RunningStatistics
from rfla.engine.model_source import training_mode
from rfla.engine.run_dir import claim_run_dir, how_to_go_on, weights_path
from rfla.engine.run_files import RunFiles
from rfla.engine.run_log import RunLog
from rfla.engine.step import TrainStep
from rfla.engine.validator import judge_weights, validate_epoch
from rfla.errors import ConfigError, DataError
from rfla.metrics import Metrics

READ_EVERY = 20  # optimiser steps between two reads of a GPU's figures; a CPU has no reason to wait


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


def train(cfg: Config, hooks: Hooks | None = None) -> TrainResult:
    """Train as `rfla train` does.

    Args:
        cfg: Settings (`rfla.cfg.load_config`).
        hooks: The user's callbacks, see `Hooks`.

    Raises:
        RflaError: Any error that the user can fix, in one line.
    """
    if processes.needs_several(cfg.device):
        return _result(processes.train_on_several(cfg, with_hooks=hooks is not None), None)
    device = select_device(cfg.device)
    cfg, notes = fill_in(cfg, device)
    world = join_world(device, cfg.timeout)
    parts: RunParts | None = None
    place: Path | None = None
    try:
        with lost_peers_named(world), memory.full_memory_named(cfg.batch), lost_workers_named():
            parts = build_run(cfg, world, device)
            parts.notes += notes
            with claim_run_dir(parts.cfg, world, "train") as run_dir:
                place = run_dir
                PeerWatch.advice = partial(how_to_go_on, run_dir)
                return _train_in(run_dir, parts, hooks)
    except (DataError, LostPeerError) as error:  # what was lost may come back
        kind = type(error)
        raise kind(f"{error}; {how_to_go_on(place)}" if place else str(error)) from None
    finally:
        if parts is not None:
            parts.close()


def _train_in(run_dir: Path, parts: RunParts, hooks: Hooks | None) -> TrainResult:
    """Run or resume a training in its directory, to the end."""
    trainer = Trainer(parts, run_dir, hooks)
    trainer.log.announce()
    if parts.cfg.resume:
        with agreed(parts.world):
            trainer.resume()
    trainer.fit()
    return trainer.finish()


def _result(run_dir: Path, metrics: Metrics | None) -> TrainResult:
    best, last = weights_path(run_dir, "best"), weights_path(run_dir, "last")
    return TrainResult(run_dir, best, last, metrics)


class Trainer:
    """One run, from its first step to its last file.

    Args:
        parts: Data, network and what moves it.
        run_dir: Where files go.
        hooks: The user's callbacks, see `Hooks`.

    Attributes:
        best: Figures and detections of the best epoch of this process.
    """

    def __init__(self, parts: RunParts, run_dir: Path, hooks: Hooks | None = None):
        self.parts, self.state, self.world = parts, parts.state, parts.world
        self.run_dir, self.hooks = run_dir, hooks or Hooks()
        self.signals = StopSignals()
        self.run = Run(parts.cfg, run_dir, parts.world, parts.device, parts.state, self.signals)
        self.step = TrainStep(
            parts.model,
            parts.state,
            parts.schedule,
            parts.model_config.normalize,
            parts.device,
            parts.dtype,
        )
        self.log = RunLog(parts, run_dir)
        self.files = RunFiles(parts, self.run, self.hooks)
        self.best: Judged | None = None
        self.first_epoch = 0  # of this process

    @property
    def cfg(self) -> Config:
        """The settings; `batch` and `accumulate` change where memory runs out."""
        return self.parts.cfg

    def fit(self) -> None:
        """Run every epoch that is left."""
        position = self.state.position
        self.first_epoch = position.epoch
        self.hooks.train_start(self.run)
        self.signals.listen()
        try:
            while position.epoch < self.cfg.epochs and not self.should_stop():
                self.hooks.epoch_start(self.run, position.epoch)
                self.refresh_fields()
                try:
                    self.train_epoch()
                except RuntimeError as error:
                    if not memory.ran_out(error):
                        raise
                    self.use_smaller_batches(error)
                    continue
                self.finish_epoch(self.validate() if self.cfg.val else None)
        except Stopped:
            self.files.write_state()
            self.files.write_last()
            stopped = f"stopped in epoch {position.epoch + 1}; {how_to_go_on(self.run_dir)}"
            self.log.say(stopped, "yellow")
            raise
        finally:
            self.signals.release()
            self.hooks.train_end(self.run)
            self.log.tensorboard.close()

    def refresh_fields(self) -> None:
        """Measure the receptive fields again where an epoch begins for which it is time."""
        position, every, parts = self.state.position, self.cfg.assigner.refresh_fields, self.parts
        if not every or position.batch or not position.epoch or position.epoch % every:
            return
        normalize = parts.model_config.normalize
        sides = measure_for_all(
            self.state.net, self.cfg, parts.train_index, normalize, self.world, parts.device
        )
        self.state.use_fields(sides)
        self.log.say(f"receptive fields measured again: {shown(sides)}")

    def train_epoch(self) -> None:
        """Train on every batch of the epoch that is left."""
        state, position, total = self.state, self.state.position, self.parts.batches_per_epoch
        self.parts.sampler.set_epoch(position.epoch, skip_batches=position.batch)
        training_mode(state.net, self.cfg.freeze)
        state.statistics = RunningStatistics(state.net)
        state.optimizer.zero_grad(set_to_none=True)
        what = f"epoch {position.epoch + 1}/{self.cfg.epochs}"
        clock = time.perf_counter()
        with self.log.progress.over(total - position.batch, what, "batches") as bar:
            for batch in batches_of(self.parts.train_loader):
                state.meter.wait += time.perf_counter() - clock

                # `accumulate` batches share a step; at the end of the epoch it may be fewer.
                first = position.batch // self.cfg.accumulate * self.cfg.accumulate
                last = min(first + self.cfg.accumulate, total)
                is_last = position.batch + 1 == last
                self.log.draw_batch(batch)
                losses = self.step.forward_backward(batch, self.cfg, 1 / (last - first), is_last)
                state.meter.images += len(batch) * self.world.size
                if is_last:
                    self.step.update(self.cfg.clip_grad)
                position.batch += 1  # behind the step: where memory runs out in it, it is repeated
                self.hooks.batch_end(self.run, losses)
                bar.step()

                # A GPU is waited for now and then, and at the end of the epoch in any case.
                due = position.iteration % READ_EVERY == 0 or position.batch == total
                if is_last and (due or self.parts.device.type == "cpu"):
                    self.after_step()
                    if state.time_share >= 1:
                        break
                clock = time.perf_counter()
        state.meter.stop()

    def after_step(self) -> None:
        """Read the figures of the device, save if it is time, and end the run if it must.

        All processes together.

        Raises:
            Stopped: Ctrl-C or a signal came.
            RflaError: Too many batches in a row were not finite.
        """
        state, cfg = self.state, self.cfg
        self.log.name_bad_batches(state.take_bad_batches())
        self.log.progress.step(0, self.log.figures())
        since_save = time.perf_counter() - self.files.state_written_at
        due = bool(cfg.save_minutes) and since_save > 60 * cfg.save_minutes
        skipped = state.position.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW
        here = (self.signals.requested, skipped, due, self.time_share())
        stop, stuck, save, state.time_share = largest_of(self.world, here, self.parts.device)
        if stuck:
            self.files.give_up()
        if save:
            self.files.write_state()
        if stop:
            raise Stopped

    def use_smaller_batches(self, error: RuntimeError) -> None:
        """Go on with smaller batches from the first optimiser step that was not taken.

        Raises:
            RflaError: The run may not change its batches.
        """
        before, epoch = self.cfg, self.state.position.epoch
        can_change = epoch == self.first_epoch and self.world.size == 1
        smaller = memory.smaller_batches(before, epoch, can_change=can_change)
        self.log.say(
            f"out of memory with batch={before.batch}: going on with batch={smaller.batch} "
            f"accumulate={smaller.accumulate}, which is the same step",
            "yellow",
        )
        self.state.drop_step()
        memory.free_after(error)
        self.parts.use_batches_of(smaller)
        self.run.cfg = smaller
        self.files.write_settings()

    def validate(self) -> Judged | None:
        """Judge the evaluated network on the validation split; None but in the main process."""
        return validate_epoch(self.parts, self.log, self.signals)

    def finish_epoch(self, validated: Judged | None) -> None:
        """Print, write the row, save the weights and the state, and move to the next epoch."""
        state, position = self.state, self.state.position
        state.meter.sums = mean_of(self.world, state.meter.sums)
        means = state.meter.means()
        row = self.log.epoch_row(means)
        position.epoch, position.batch = position.epoch + 1, 0
        if self.world.is_main:
            metrics = validated.metrics if validated is not None else None
            is_best = position.offer(metrics.ap if metrics is not None else None)
            if metrics is not None:
                self.hooks.val_end(self.run, metrics)
            self.log.add_epoch(row, means, metrics, is_best)
            if is_best:
                self.best = validated
            self.files.write_epoch(metrics, is_best)
        state.meter = Meter()
        self.files.write_state()

    def should_stop(self) -> bool:
        """Whether patience or the time limit ends the run before its next epoch; says so."""
        position, cfg = self.state.position, self.cfg
        no_better = cfg.val and position.epoch - position.improved_epoch >= cfg.patience
        here = (no_better and bool(cfg.patience) and self.world.is_main, self.time_share())
        stale, self.state.time_share = largest_of(self.world, here, self.parts.device)
        out_of_time = self.state.time_share >= 1 and position.epoch > 0
        if not (stale or out_of_time):
            return False
        why = f"no better AP for {cfg.patience} epochs"
        if out_of_time:
            why = f"time={show(cfg.time)} h is over"
        self.log.say(f"stopping after epoch {position.epoch}: {why}", "yellow")
        return True

    def time_share(self) -> float:
        """Share of the time limit that has passed in this process; 0 without one."""
        return self.state.seconds / (self.cfg.time * 3600) if self.cfg.time is not None else 0.0

    def resume(self) -> None:
        """Go on from the state in the run's directory.

        Raises:
            WeightsError: There is none, it is damaged, or made by another model or other data.
            ConfigError: It has gone further than the epochs that are asked for.
        """
        warning = self.files.restore()
        done = self.state.position.epoch
        if done > self.cfg.epochs:
            raise ConfigError(
                f"epochs={self.cfg.epochs}: this run has completed {done}; give more to continue"
            )
        if warning:
            self.log.say(warning, "yellow")
        self.log.results.load(self.state.position.epoch)
        self.files.write_settings()
        self.log.say_position()

    def report(self) -> None:
        """Write the report on the best weights. The main process alone calls this."""
        parts = self.parts
        if self.best is None and self.cfg.val and self.state.position.best_epoch:
            # An earlier process of this run made the best weights.
            best = weights_path(self.run_dir, "best")
            self.best = judge_weights(
                best, self.cfg, parts.val_index, parts.protocol, parts.device, parts.dtype
            )
        self.log.finish(self.best)

    def finish(self) -> TrainResult:
        """Write what people look at; return where everything is."""
        for loader in (self.parts.train_loader, self.parts.val_loader):
            for skipped in gather(self.world, loader.skipped):
                loader.skipped = skipped | loader.skipped
        if self.world.is_main:
            try:
                if self.signals.received:  # after the last step, where nobody asked any more
                    raise KeyboardInterrupt
                self.report()
            except KeyboardInterrupt:
                best = weights_path(self.run_dir, "best")
                done = f"stopped before the report; the best weights are in {best}"
                self.log.say(f"{done}; {how_to_go_on(self.run_dir)}", "yellow")
                raise
        return _result(self.run_dir, self.best.metrics if self.best is not None else None)
