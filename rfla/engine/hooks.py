"""Six moments of a training run at which a person's own code may act."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from rfla.engine.trainer import Trainer
    from rfla.metrics import Metrics


class Hooks:
    """Subclass this, override what you need, and give it to `RFLA(...).train(hooks=MyHooks())`.

    Every method gets the running `Trainer`; what it returns is ignored. In a distributed run every
    process calls them, but for `val_end` and `checkpoint`, which the main one calls alone;
    `trainer.is_main` tells which one writes files.
    """

    def train_start(self, trainer: Trainer) -> None:
        """Call once, when model, data and optimiser stand and before the first batch."""

    def epoch_start(self, trainer: Trainer, epoch: int) -> None:
        """Call before the first batch of each epoch (counted from 0)."""

    def batch_end(self, trainer: Trainer, losses: dict[str, Tensor]) -> None:
        """Call after every batch with its loss parts (0-d tensors on the device.

        Reading one waits for the GPU).
        """

    def val_end(self, trainer: Trainer, metrics: Metrics) -> None:
        """Call after each validation with its figures."""

    def checkpoint(self, trainer: Trainer, path: Path) -> None:
        """Call after a weights file was written."""

    def train_end(self, trainer: Trainer) -> None:
        """Call once at the end, also after an interruption."""
