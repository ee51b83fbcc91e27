"""The files of a training: `best`, `last` and `epochN.safetensors`, the state, `args.yaml`.

What weights hold is `model_source.py`'s, what the state holds `state.py`'s; here is when they are
written, and where.
"""

import time
from typing import NoReturn

from rfla.cfg.document import to_yaml
from rfla.data.object_sizes import trained_scale
from rfla.engine.build import RunParts
from rfla.engine.distributed import mean_of
from rfla.engine.hooks import Hooks, Run
from rfla.engine.meter import MAX_SKIPPED_IN_A_ROW, is_finite
from rfla.engine.model_source import weights_metadata
from rfla.engine.run_dir import state_path, weights_path, writing
from rfla.errors import RflaError
from rfla.files import write_atomically
from rfla.metrics import Metrics
from rfla.models.detector_fields import with_sides
from rfla.models.weights import save_weights


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
        # What the weights say of the training's objects is the same in every epoch.
        cfg = parts.cfg
        self.scale = trained_scale(parts.train_index, cfg.imgsz, cfg.gsd)

    def write_weights(self, name: str, metrics: Metrics | None) -> None:
        """Write `weights/<name>.safetensors`: evaluated weights, and what rebuilds the model."""
        parts, path = self.parts, weights_path(self.run_dir, name)
        figures = metrics.figures if metrics is not None else {}
        run = {
            "data": str(parts.cfg.data),
            "epoch": parts.state.position.epoch,
            "seed": parts.cfg.seed,
        }
        metadata = weights_metadata(
            with_sides(parts.model_config, parts.state.net),
            parts.names,
            parts.cfg.imgsz,
            figures,
            run,
            self.scale,
        )
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

    def write_epoch(self, metrics: Metrics | None, is_best: bool) -> None:
        """Write the weights that an epoch leaves; called after the position has moved on."""
        epoch, period = self.parts.state.position.epoch, self.parts.cfg.save_period
        if is_best:
            self.write_weights("best", metrics)
        self.write_last(metrics)
        if period > 0 and epoch % period == 0:
            self.write_weights(f"epoch{epoch}", metrics)

    def give_up(self) -> NoReturn:
        """End a run whose loss does not come back; the weights are those before the bad steps.

        Raises:
            RflaError: In the main process.
            SystemExit: In the others, which say nothing.
        """
        if not self.world.is_main:
            raise SystemExit(RflaError.exit_code)
        if is_finite(self.parts.state.evaluated_net):
            self.write_last()
        last = weights_path(self.run_dir, "last")
        left = f"the last good weights are in {last}"
        if not last.exists():
            left = "there are no good weights"
        raise RflaError(
            f"the loss was not finite in {MAX_SKIPPED_IN_A_ROW} batches in a row; {left}; "
            "try a lower lr0= or clip_grad="
        )

    def write_state(self) -> None:
        """Write everything that a resumed run needs. All processes call this."""
        self.state_written_at = time.perf_counter()
        state, path = self.parts.state, state_path(self.run_dir)
        sums = mean_of(self.world, state.meter.sums)
        if self.world.is_main:
            with writing(self.run_dir, path):
                counted_in = {"accumulate": self.parts.cfg.accumulate}
                state.save(path, sums, self.parts.identity | counted_in)

    def write_settings(self) -> None:
        """Write `args.yaml` again, with settings that have changed."""
        path = self.run_dir / "args.yaml"
        if self.world.is_main:
            with writing(self.run_dir, path):
                write_atomically(path, to_yaml(self.parts.cfg))

    def restore(self) -> str | None:
        """Go on from the state; return a warning for the user. All processes call this.

        Raises:
            WeightsError: There is none, it is damaged, or made by another model or other data.
        """
        parts, path = self.parts, state_path(self.run_dir)
        accumulate = parts.cfg.accumulate
        warning = parts.state.restore(path, parts.identity, parts.device, accumulate)
        position = parts.state.position
        position.batch = min(position.batch, parts.batches_per_epoch)  # the last step may be short
        return warning
