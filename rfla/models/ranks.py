"""Numbers that a loss shares with the other processes of a distributed run."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_ALONE = ContextVar("alone", default=False)


@contextmanager
def without_ranks() -> Iterator[None]:
    """Exchange nothing with other processes in this block, in which each may go its own way."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def mean_over_ranks(value: Tensor) -> Tensor:
    """Mean of a tensor over the processes of a distributed run.

    The tensor itself where there is one process, and in `without_ranks()`.
    """
    ranks = _ranks()
    if ranks == 1:
        return value
    total = value.detach().clone()
    torch.distributed.all_reduce(total)
    return total / ranks


def divisor_over_ranks(count: Tensor) -> Tensor:
    """Mean over the processes of a count that a loss is divided by; in all together at least 1.

    So the gradients of several processes, which are averaged, are those of one with all images.
    """
    return mean_over_ranks(count).clamp(min=1 / _ranks())


def _ranks() -> int:
    """Number of processes that exchange numbers here."""
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if several and not _ALONE.get() else 1
