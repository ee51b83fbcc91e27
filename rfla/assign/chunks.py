"""Work on many boxes in pieces of bounded memory."""

from collections.abc import Iterator

BUDGET = 48 * 2**20
"""Bytes that the matrices of one chunk may take together."""


def chunks(total: int, row_bytes: int, budget: int = BUDGET) -> Iterator[slice]:
    """Slices of `range(total)` whose rows take at most `budget` bytes, at least one row each."""
    size = max(1, budget // max(1, row_bytes))
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
