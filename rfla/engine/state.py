"""What of a run changes while it trains, and how it is saved and taken up again.

`checkpoint.py` knows the file; this one knows what belongs into it.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rfla.engine import checkpoint
from rfla.engine.ema import EMA
from rfla.engine.meter import BatchRecord, Meter, RunningStatistics, parts_not_finite
from rfla.errors import WeightsError
from rfla.models.detector_fields import sides_of, use_sides

T = TypeVar("T")


@dataclass
class Position:
    """Where a run is.

    Attributes:
        epoch: Finished epochs.
        batch: Batches of the current epoch already used.
        iteration: Optimiser steps since the start.
        best_ap: Highest AP so far.
        best_epoch: The last epoch that had it, counted from 1; 0 where none had one yet.
        improved_epoch: The first epoch that had it; `patience` counts from it.
        skipped_in_a_row: Batches with a loss or gradient that was not finite, up to now.
        seconds: Training time before this process.
    """

    epoch: int = 0
    batch: int = 0
    iteration: int = 0
    best_ap: float = -1.0
    best_epoch: int = 0
    improved_epoch: int = 0
    skipped_in_a_row: int = 0
    seconds: float = 0.0

    def offer(self, ap: float | None) -> bool:
        """Take the figure of the epoch that has just ended; return whether its weights are best.

        Of equal figures the latest is: it has learnt longest. A negative figure, that of a split
        without boxes, is no figure. Where nothing is validated (None) each epoch is the best, until
        a validation has found one.
        """
        if ap is None:
            if self.best_ap >= 0:
                return False
            self.best_epoch = self.epoch
            return True
        if ap < 0 or ap < self.best_ap:
            return False
        if ap > self.best_ap:
            self.improved_epoch = self.epoch
        self.best_ap, self.best_epoch = ap, self.epoch
        return True


class RunState:
    """Everything that a resumed run needs to go on as if nothing had happened.

    Args:
        net: The network that learns, on its device.
        optimizer: Of its parameters.
        ema: Its averaged weights, if there are any.
        scaler: Of the loss; disabled on a CPU.

    Attributes:
        position: Where the run is.
        meter: The sums of the current epoch.
        statistics: Running statistics of the norm layers that learn.
        time_share: Share of the time limit (`time=`) that has passed, the same in all processes;
            0 without a limit.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema: EMA | None,
        scaler: torch.amp.GradScaler,
    ) -> None:
        self.net, self.optimizer, self.ema, self.scaler = net, optimizer, ema, scaler
        self.position, self.meter = Position(), Meter()
        self.statistics = RunningStatistics(net)
        self.time_share = 0.0
        self._started = time.perf_counter()

    @property
    def evaluated_net(self) -> nn.Module:
        """The network that is validated and saved: the averaged one if there is one."""
        return self.ema.net if self.ema is not None else self.net

    @property
    def seconds(self) -> float:
        """Training time so far, earlier processes of the same run included."""
        return self.position.seconds + time.perf_counter() - self._started

    def use_fields(self, sides: Sequence[float]) -> None:
        """Go on with these sides (px, one for each level) of the receptive fields, if any."""
        for net in (self.net, self.evaluated_net):
            if list(sides) != sides_of(net):
                use_sides(net, sides)

    def take_bad_batches(self) -> list[tuple[BatchRecord, list[str]]]:
        """Return the batches since the last call that were not finite, with the parts at fault.

        They are counted in the meter and, in a row, in the position.
        """
        bad = []
        for record, parts in zip(
            self.meter.recent, parts_not_finite(self.meter.recent), strict=True
        ):
            if not parts:
                self.position.skipped_in_a_row = 0
            # A scaler of float16 comes down from a factor that overflows: that is no fault.
            elif parts != ["gradient"] or self.scaler.get_scale() <= 1:
                bad.append((record, parts))
                self.position.skipped_in_a_row += 1
        self.meter.skipped += len(bad)
        self.meter.recent.clear()
        return bad

    def drop_step(self) -> None:
        """Forget the gradients of a step that was not taken to its end."""
        self.optimizer.zero_grad(set_to_none=True)
        self.meter.recent.clear()
        if self.scaler.is_enabled():
            # A scaler that has unscaled these gradients would refuse to unscale the next ones.
            kept = self.scaler.state_dict()
            self.scaler = torch.amp.GradScaler(self.scaler._device)
            self.scaler.load_state_dict(kept)

    def save(self, path: Path, sums: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
        """Write everything into one file.

        Args:
            path: The file.
            sums: Those of the meter, the mean over all processes.
            data: What a resumed run must find again in its data, and `accumulate`, the batches of
                an optimiser step.
        """
        tensors = checkpoint.prefixed("model", self.net.state_dict())
        tensors |= checkpoint.prefixed("optimizer", checkpoint.optimizer_tensors(self.optimizer))
        tensors |= checkpoint.prefixed("random", checkpoint.random_tensors())
        tensors |= checkpoint.prefixed("meter", sums)
        if self.ema is not None:
            tensors |= checkpoint.prefixed("ema", self.ema.net.state_dict())
        document = {
            "position": asdict(self.position) | {"seconds": self.seconds},
            "meter": self.meter.document(),
            "sums": list(sums),  # the file sorts its tensors by name
            "random": checkpoint.random_document(),
            "scaler": self.scaler.state_dict(),
            "ema_updates": self.ema.updates if self.ema is not None else 0,
            "data": dict(data),
            "fields": sides_of(self.net),
        }
        checkpoint.save_state(path, tensors, document)

    def restore(
        self, path: Path, data: Mapping[str, Any], device: torch.device, accumulate: int = 1
    ) -> str | None:
        """Go on from a file.

        Args:
            path: The file.
            data: What the run finds in its data now.
            device: Where it computes.
            accumulate: Batches of an optimiser step from now on. Where memory ran out after the
                file was written, they are more and smaller than those that it counts.

        Returns:
            A warning for the user, or None.

        Raises:
            WeightsError: It is damaged, with none before it, or made by another model or data.
        """
        tensors, document, warning = checkpoint.load_latest_state(path)
        # First, before anything of this process is changed.
        with checkpoint.complete(path):
            refuse_other_data(data, document["data"], path)
        parts = {
            name: checkpoint.without_prefix(name, tensors)
            for name in ("model", "optimizer", "ema", "meter", "random")
        }
        checkpoint.restore_module(self.net, parts["model"], path)
        checkpoint.restore_optimizer(self.optimizer, parts["optimizer"], path)
        if self.ema is not None:
            checkpoint.restore_module(self.ema.net, parts["ema"], path)
        with checkpoint.complete(path):
            if self.ema is not None:
                self.ema.updates = _number(document["ema_updates"], int)
            if document["scaler"]:
                self.scaler.load_state_dict(document["scaler"])
            self.position = _from_document(Position, document["position"], asdict(Position()))
            before = _number(document["data"].get("accumulate", accumulate), int)
            self.position.batch = -(-self.position.batch // max(before, 1)) * accumulate
            self.use_fields([_number(side, float) for side in document["fields"]])
            sums = {name: parts["meter"][name].to(device) for name in document["sums"]}
            self.meter = _from_document(Meter, document["meter"], Meter().document())
            self.meter.sums = sums
            checkpoint.restore_random(parts["random"], document["random"])
        return warning


def refuse_other_data(now: Mapping[str, Any], before: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on with other classes, or with so many images that their order would differ.

    Raises:
        WeightsError: The data has changed.
    """
    for what, value in before.items():
        if what in now and now[what] != value:
            last = path.with_name("last.safetensors")
            raise WeightsError(
                f"{path}: the run had {_shown(value)} {what}, "
                f"the data now has {_shown(now[what])}; start a new run "
                f"from model={last}"
            )


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _from_document(kind: type[T], values: Mapping[str, Any], names: Iterable[str]) -> T:
    """Make a dataclass from plain numbers of a file, each of the type that its field has.

    Raises:
        KeyError: A number is missing.
        TypeError: A value is no number.
    """
    types = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: _number(values[name], types[name]) for name in names})


def _number(value: Any, kind: Any) -> Any:
    """Return a number as it is.

    Raises:
        TypeError: It is something else, or not finite.
    """
    accepted = int if kind is int else (int, float)
    if not isinstance(value, accepted) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError(f"{str(value)[:40]!r} where a number belongs")
    return value
