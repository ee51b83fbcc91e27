"""Six moments of a training run at which a person's own code may act."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rfla.cfg import Config
from rfla.engine.distributed import World
from rfla.engine.processes import StopSignals
from rfla.engine.state import RunState
from rfla.metrics import Metrics


@dataclass
class Run:
    """A training run as hooks see it.

    Attributes:
        cfg: Its settings; `batch` and `accumulate` change where memory ran out.
        run_dir: Its directory.
        world: This process among its peers.
        device: Where it computes.
        state: What changes: `state.position`, `state.optimizer`, `state.ema`, `state.meter`.
        signals: Whether the run was asked to stop.
    """

    cfg: Config
    run_dir: Path
    world: World
    device: torch.device
    state: RunState
    signals: StopSignals

    @property
    def net(self) -> nn.Module:
        """The network that learns."""
        return self.state.net

    @property
    def epoch(self) -> int:
        """The current epoch, from 0."""
        return self.state.position.epoch

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.world.is_main

    def stop(self) -> None:
        """End the run after this step as Ctrl-C does, with its state written."""
        self.signals.requested = True


class Hooks:
    """Subclass this, override what you need, and give it to `RFLA(...).train(hooks=MyHooks())`.

    Every method gets the `Run`; what it returns is ignored. In a distributed run every process
    calls them, but for `val_end` and `checkpoint`, which the main one calls alone; `run.is_main`
    says which one writes files.
    """

    def train_start(self, run: Run) -> None:
        """Call once, when model, data and optimiser stand and before the first batch."""

    def epoch_start(self, run: Run, epoch: int) -> None:
        """Call before the first batch of each epoch (counted from 0)."""

    def batch_end(self, run: Run, losses: dict[str, Tensor]) -> None:
        """Call after every batch.

        Args:
            run: The run.
            losses: Its loss parts, 0-d tensors on the device. Reading one waits for a GPU.
        """

    def val_end(self, run: Run, metrics: Metrics) -> None:
        """Call after each validation with its figures."""

    def checkpoint(self, run: Run, path: Path) -> None:
        """Call after a weights file was written."""

    def train_end(self, run: Run) -> None:
        """Call once at the end, also after an interruption."""
