"""Boxes and priors along one axis: what a distance is computed from.

All tensors are float32 px and broadcast against each other; no shape is prescribed.
"""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

EPS = 1e-6
"""px added to every side, and px^2 below which no area falls: no score divides by zero."""


class Intervals:
    """Boxes or priors along one axis, from `low` to `high` px."""

    def __init__(self, low: Tensor, high: Tensor) -> None:
        self._low = low
        self._high = high

    @property
    def low(self) -> Tensor:
        """Coordinate of the lower end."""
        return self._low

    @property
    def high(self) -> Tensor:
        """Coordinate of the upper end."""
        return self._high

    @cached_property
    def center(self) -> Tensor:
        """Coordinate of the middle."""
        return (self.low + self.high) / 2

    @cached_property
    def side(self) -> Tensor:
        """Length plus 1e-6 px, so that an interval of length zero has a finite score."""
        return self.high - self.low + EPS


@dataclass(frozen=True, eq=False)
class Axis:
    """Boxes against priors along one axis (x or y)."""

    gt: Intervals
    prior: Intervals

    @cached_property
    def offset(self) -> Tensor:
        """Box centre minus prior centre, px."""
        return self.gt.center - self.prior.center
