"""Running sums of an epoch, kept on the device so that a step never waits for the GPU."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class BatchRecord:
    """What is needed to name a batch later, should its loss or gradient turn out not to be finite."""

    indices: Tensor
    parts: dict[str, Tensor]

    def not_finite(self) -> list[str]:
        """Return the names of the parts that are not finite (this waits for the device)."""
        return [name for name, part in self.parts.items() if not bool(torch.isfinite(part))]


@dataclass
class Meter:
    """Sums of the loss parts and other figures over the batches of one epoch.

    Attributes:
        sums: Sum of each loss part, and of `loss` (the total), `grad_norm`, `positives`, `boxes`;
            0-d tensors. A batch with a loss that is not finite adds 0.
        batches: Batches that were summed.
        updates: Optimiser steps.
        skipped: Batches with a loss or gradient that was not finite.
        images: Images seen.
        wait: Seconds that the loop waited for data.
        recent: The batches since the last look at the device.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    batches: int = 0
    updates: int = 0
    skipped: int = 0
    images: int = 0
    wait: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    elapsed_before: float = 0.0
    stopped: float | None = None
    recent: list[BatchRecord] = field(default_factory=list)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add a batch's figures; a figure that is not finite adds nothing."""
        for name, value in values.items():
            finite = torch.nan_to_num(value.detach().float(), nan=0.0, posinf=0.0, neginf=0.0)
            self.sums[name] = self.sums[name] + finite if name in self.sums else finite

    def means(self) -> dict[str, float]:
        """Return the mean of each figure over the batches, and positives per box."""
        values = {name: float(total) for name, total in self.sums.items()}
        positives, boxes = values.pop("positives", 0.0), values.pop("boxes", 0.0)
        grad_norm = values.pop("grad_norm", 0.0) / max(self.updates, 1)
        result = {name: total / max(self.batches, 1) for name, total in values.items()}
        return result | {"grad_norm": grad_norm, "positives_per_box": positives / max(boxes, 1.0)}

    @property
    def elapsed(self) -> float:
        """Seconds of training since the epoch began, those before an interruption included."""
        return self.elapsed_before + (self.stopped or time.perf_counter()) - self.started

    def stop(self) -> None:
        """End the clock: what follows is no training."""
        self.stopped = time.perf_counter()

    def images_per_second(self) -> float:
        """Return the throughput so far."""
        return self.images / max(self.elapsed, 1e-9)

    def document(self) -> dict[str, float]:
        """Return the plain numbers for the training state (`sums` are stored as tensors)."""
        names = ("batches", "updates", "skipped", "images", "wait")
        return {name: getattr(self, name) for name in names} | {"elapsed_before": self.elapsed}
