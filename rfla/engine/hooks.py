"""Callbacks of a training run, and a way to stop it."""

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from rfla.cfg import Config
from rfla.engine.distributed import World
from rfla.engine.state import RunState
from rfla.metrics import Metrics
from rfla.stop_signals import STOP_SIGNALS


class Stopped(KeyboardInterrupt):
    """The run ends here because it was asked to.

    Raised between two optimiser steps, where the state is whole.
    """


class StopSignals:
    """Ctrl-C and signals end a run between two steps; a second Ctrl-C ends it at once.

    Taken as SIGTERM are a closed terminal (SIGHUP), and the notices of batch systems before they
    kill: SIGUSR1, and SIGXCPU where the processor time is over.

    Attributes:
        requested: Whether the run is to stop.
        received: Whether a signal asked for it, and not a hook.
    """

    def __init__(self) -> None:
        self.requested = self.received = False
        self._before: dict[int, Any] = {}
        self._terminals: list[int] = []

    def listen(self) -> None:
        """Take the signals over.

        Only the main thread may; elsewhere (a notebook's thread) this does nothing.
        """
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._stop) for number in STOP_SIGNALS}
            self._terminals = [output for output in (1, 2) if os.isatty(output)]

    def release(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            self.release()
            # In the middle of a step nothing is saved; the files before stay.
            raise KeyboardInterrupt
        if self._terminals and signal.Signals(number).name == "SIGHUP":
            # The terminal has gone: what is still written must not fail with it.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for output in self._terminals:
                os.dup2(nowhere, output)
        self.requested = self.received = True


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
        """End the run after this step as Ctrl-C does, with its state written.

        One whose last epoch is over ends as always, with its report.
        """
        self.signals.requested = True


class Hooks:
    """Subclass this, override what you need, and give it to `RFLA(...).train(hooks=MyHooks())`.

    Every method gets the `Run`; what it returns is ignored. In a distributed run every process
    calls them, but for `val_end` and `checkpoint`, which the main one calls alone; `run.is_main`
    says which one writes files.
    """

    def train_start(self, run: Run) -> None:
        """Called once, after model, data and optimiser are ready and before the first batch."""

    def epoch_start(self, run: Run, epoch: int) -> None:
        """Called before the first batch of each epoch (counted from 0).

        Once more for an epoch that goes on after a resume, or with smaller batches.
        """

    def batch_end(self, run: Run, losses: dict[str, Tensor]) -> None:
        """Called after every batch.

        Args:
            run: The run.
            losses: Its loss parts, 0-d tensors on the device. Reading one waits for a GPU.
        """

    def val_end(self, run: Run, metrics: Metrics) -> None:
        """Called after each validation with its figures."""

    def checkpoint(self, run: Run, path: Path) -> None:
        """Called after a weights file was written."""

    def train_end(self, run: Run) -> None:
        """Called once at the end, also after an interruption."""
