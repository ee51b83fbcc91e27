"""The learning rate of each step: warm-up, then steps or a cosine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rfla.names import Warmup

LONGEST_WARMUP = 0.1  # of a run


@dataclass(frozen=True)
class Schedule:
    """Step or cosine decay by epoch, with a warm-up by iteration.

    A run that has a time limit (`time=`) goes through it by the clock where that is ahead, so that
    it ends at the last rate too.

    Attributes:
        epochs: Length of the run.
        iterations_per_epoch: Optimiser steps in an epoch.
        steps: Epochs (counted from 0) at whose start the rate is multiplied by `gamma`.
        gamma: Factor at each step.
        cosine: Cosine from 1 to `final` in place of steps, updated every iteration.
        final: The last factor of the cosine.
        warmup_iterations: Length of the warm-up (the trainer caps it with `capped_warmup`).
        warmup_ratio: Factor at iteration 0.
        warmup: "linear" rises from `warmup_ratio` to 1; "constant" stays at `warmup_ratio` until
            the warm-up ends.
    """

    epochs: int
    iterations_per_epoch: int
    steps: Sequence[int] = (8, 11)
    gamma: float = 0.1
    cosine: bool = False
    final: float = 0.01
    warmup_iterations: int = 5000
    warmup_ratio: float = 0.001
    warmup: Warmup = "linear"

    @property
    def total_iterations(self) -> int:
        """Optimiser steps in the whole run."""
        return self.epochs * self.iterations_per_epoch

    def factor(self, iteration: int, time_share: float = 0.0) -> float:
        """Return the factor of `lr0`.

        Args:
            iteration: Counted from 0.
            time_share: Share of the time limit that has passed; 0 without one.
        """
        if self.cosine:
            progress = min(max(iteration / max(self.total_iterations, 1), time_share), 1.0)
            regular = self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2
        else:
            epoch = max(
                iteration // max(self.iterations_per_epoch, 1), int(time_share * self.epochs)
            )
            regular = self.gamma ** sum(epoch >= step for step in self.steps)
        # As no warm-up takes more than a tenth of the iterations, none takes more of the time.
        warm = max(iteration / max(self.warmup_iterations, 1), time_share / LONGEST_WARMUP)
        if warm >= 1 or iteration >= self.warmup_iterations:
            return regular
        if self.warmup == "constant":
            return regular * self.warmup_ratio
        return regular * (1 - (1 - warm) * (1 - self.warmup_ratio))


def capped_warmup(warmup_iterations: int, total_iterations: int) -> int:
    """Cap a warm-up at a tenth of the run: 5,000 iterations would be all that small data has."""
    return min(warmup_iterations, int(total_iterations * LONGEST_WARMUP))


def scaled_steps(steps: Sequence[int], recipe_epochs: int, epochs: int) -> tuple[int, ...]:
    """Move the steps of a recipe to another length: (8, 11) of 12 epochs is (16, 22) of 24."""
    moved = (max(1, round(step * epochs / recipe_epochs)) for step in steps)
    return tuple(sorted(set(moved)))
