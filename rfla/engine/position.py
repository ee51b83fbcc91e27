"""Where a run is."""

from dataclasses import dataclass


@dataclass
class Position:
    """Everything here is in the training state.

    Attributes:
        epoch: Finished epochs.
        batch: Batches of the current epoch already used.
        iteration: Optimiser steps since the start.
        best_ap: Highest AP so far.
        best_epoch: The epoch that had it, counted from 1; 0 before the first validation.
        skipped_in_a_row: Batches with a loss or gradient that was not finite, up to now.
        seconds: Training time before this process.
    """

    epoch: int = 0
    batch: int = 0
    iteration: int = 0
    best_ap: float = -1.0
    best_epoch: int = 0
    skipped_in_a_row: int = 0
    seconds: float = 0.0
