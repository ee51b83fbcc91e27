"""Which images share a batch, and in what order: shuffled for training, by size for evaluation.

Shapes: N images of a data set.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Key = tuple[int, int]
"""Epoch and row of a sample."""


class TrainSampler:
    """Shuffled batches of `(epoch, row)`, each epoch another order.

    The last batch is filled up from the front.

    Args:
        length: Number of images.
        batch: Images of a global batch, over all ranks.
        seed: Of the order.
        rank: This process.
        world: Number of processes; must divide `batch`.
    """

    def __init__(
        self, length: int, batch: int, seed: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        if batch % world:
            raise ValueError(f"batch {batch} must be a multiple of the {world} ranks")
        self.length, self.batch, self.seed, self.rank, self.world = length, batch, seed, rank, world
        self.epoch = 0
        self.skip_batches = 0

    def set_epoch(self, epoch: int, skip_batches: int = 0) -> None:
        """Choose the epoch, and how many of its first batches to leave out.

        A run that is resumed in the middle of an epoch has had those.
        """
        self.epoch, self.skip_batches = epoch, skip_batches

    @property
    def batches(self) -> int:
        """Batches of a whole epoch."""
        return -(-self.length // self.batch)

    def __len__(self) -> int:
        return max(self.batches - self.skip_batches, 0)

    def __iter__(self) -> Iterator[list[Key]]:
        # Every rank draws the same order and takes its share of each batch: no rank must be told.
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)
        order = np.resize(order, self.batches * self.batch)  # repeats from the front
        share = self.batch // self.world
        for number in range(self.skip_batches, self.batches):
            start = number * self.batch + self.rank * share
            yield [(self.epoch, int(row)) for row in order[start : start + share]]


class EvalSampler:
    """All rows once, in batches of one padded size: what is found in an image is its own alone.

    In the padding of a larger neighbour a network sees, and finds, what it does not see without.
    The largest images come first, so that memory runs out at once or never; those of one size keep
    their order. Rank `r` takes every `world`-th batch.

    Args:
        sizes: (N, 2) height and width of each row's image after padding, px.
        batch: Images of a batch.
        rank: This process.
        world: Number of processes.
    """

    def __init__(self, sizes: NDArray[np.int64], batch: int, rank: int = 0, world: int = 1) -> None:
        self.batch = batch
        height, width = sizes.T
        order = np.lexsort((width, -height * width))  # stable
        starts = np.flatnonzero(np.diff(sizes[order], axis=0).any(axis=1)) + 1
        alike = np.split(order, starts)
        batches = [rows[i : i + batch] for rows in alike for i in range(0, len(rows), batch)]
        self._batches = batches[rank::world]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Key]]:
        for rows in self._batches:
            yield [(0, int(row)) for row in rows]
