"""What a run measures while it trains, and what it does about numbers that are not finite.

Sums stay on the device, so that a step never waits for a GPU.

Shapes: R running statistics of all norm layers together.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

MAX_SKIPPED_IN_A_ROW = 10  # batches without a finite loss after which a run ends


@dataclass
class BatchRecord:
    """What names a batch later, should its loss or gradient turn out not to be finite.

    Attributes:
        indices: Rows of its images in the training split.
        parts: Its loss parts and, at the end of a step, the norm of the gradient; 0-d tensors.
    """

    indices: Tensor
    parts: dict[str, Tensor]


def parts_not_finite(records: Sequence[BatchRecord]) -> list[list[str]]:
    """Return for each batch the names of its parts that are not finite.

    The host waits for the device once, however many batches there are.
    """
    values = [part.float() for record in records for part in record.parts.values()]
    if not values:
        return [[] for _ in records]
    finite = iter(torch.isfinite(torch.stack(values)).tolist())
    return [[name for name in record.parts if not next(finite)] for record in records]


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
        recent: The batches since the host last read the device.
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
            # One bad batch must not make the mean of the whole epoch NaN.
            finite = torch.nan_to_num(value.detach().float(), nan=0.0, posinf=0.0, neginf=0.0)
            self.sums[name] = self.sums[name] + finite if name in self.sums else finite

    def add_batch(
        self, indices: Tensor, losses: Mapping[str, Tensor], counts: Mapping[str, Tensor]
    ) -> None:
        """Add what one batch of this process gave.

        Args:
            indices: Rows of its images.
            losses: Its loss parts; their sum is added as `loss`.
            counts: `positives` and `boxes`.
        """
        parts = {name: part.detach() for name, part in losses.items()}
        total = torch.stack(list(parts.values())).sum()
        self.add(parts | {"loss": total} | dict(counts))
        # The host looks at these later, all at once: each look would wait for a GPU.
        self.recent.append(BatchRecord(indices, parts))
        self.batches += 1

    def add_step(self, grad_norm: Tensor) -> None:
        """Add an optimiser step; the norm belongs to the batch that ended it."""
        self.recent[-1].parts["gradient"] = grad_norm.detach()
        self.add({"grad_norm": grad_norm})
        self.updates += 1

    def means(self) -> dict[str, float]:
        """Return the mean of each figure over the batches, and positives per box."""
        values = {name: float(total) for name, total in self.sums.items()}
        positives, boxes = values.pop("positives", 0.0), values.pop("boxes", 0.0)
        grad_norm = values.pop("grad_norm", 0.0) / max(self.updates, 1)
        result = {name: total / max(self.batches, 1) for name, total in values.items()}
        return result | {
            "grad_norm": grad_norm,
            "positives_per_box": positives / boxes if boxes else 0.0,
        }

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


class RunningStatistics:
    """The statistics of norm layers that learn: a value that is not finite would stay for ever.

    Args:
        net: A network in training mode.
    """

    def __init__(self, net: nn.Module) -> None:
        self.tensors = [
            buffer
            for module in net.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
            for buffer in module.buffers(recurse=False)
            if buffer.is_floating_point()
        ]
        self.before: Tensor | None = None  # (R,)

    def keep(self) -> None:
        """Remember them before a forward pass."""
        self.before = torch.cat(self.tensors) if self.tensors else None

    def take_back_unless(self, finite: Tensor) -> None:
        """Go back to what `keep` remembered if `finite` (0-d bool on the device) is false.

        The host does not wait.
        """
        if self.before is not None:
            # Chosen on the device: the host does not know whether the loss was finite.
            chosen = torch.where(finite, torch.cat(self.tensors), self.before)
            torch._foreach_copy_(
                self.tensors, torch.split(chosen, [len(tensor) for tensor in self.tensors])
            )


def is_finite(net: nn.Module) -> bool:
    """Whether a network may be saved: every weight and running statistic is finite."""
    tensors = (tensor for tensor in net.state_dict().values() if tensor.is_floating_point())
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
