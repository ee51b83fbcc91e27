"""Running sums of an epoch, kept on the device so that a step never waits for the GPU."""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class BatchRecord:
    """What is needed to name a batch later, should its loss turn out not to be finite."""

    indices: Tensor
    losses: dict[str, Tensor]


@dataclass
class Meter:
    """Sums of the loss parts and other figures over the batches of one epoch.

    Attributes:
        sums: Sum of each loss part, and of `loss` (the total), `grad_norm`, `positives`, `boxes`; 0-d tensors.
        batches: Batches that were summed; those with a non-finite loss are in `skipped` alone.
        images: Images seen.
        wait: Seconds that the loop waited for data.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    batches: int = 0
    updates: int = 0
    skipped: int = 0
    images: int = 0
    wait: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    elapsed_before: float = 0.0
    recent: deque[BatchRecord] = field(default_factory=lambda: deque(maxlen=64))

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
        """Seconds since the epoch began, those before an interruption included."""
        return self.elapsed_before + time.perf_counter() - self.started

    def images_per_second(self) -> float:
        """Return the throughput so far."""
        return self.images / max(self.elapsed, 1e-9)

    def document(self) -> dict[str, float]:
        """Return the plain numbers for the training state (`sums` are stored as tensors)."""
        names = ("batches", "updates", "skipped", "images", "wait")
        return {name: getattr(self, name) for name in names} | {"elapsed_before": self.elapsed}
