"""What each cell of a feature map sees of the image, along one axis.

Operations of a network that mix neighbouring cells (convolution, pooling, resizing, cropping) treat
the axes alone, and say for each cell of their output which cells of their input it takes. Arrays
are numpy's: the network runs on fake tensors meanwhile (`trace.py`), which torch would make of all.

Shapes: N cells of a map along the axis, M of the next map, K cells that each of those takes.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

NOTHING = 2**40  # px, `first` of a cell that sees nothing

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Axis:
    """The pixels from `first` to `last` that each cell depends on, both included.

    Attributes:
        first: (N,) px.
        last: (N,) px.
        inner: (N,): no window on the way to this cell hung over a border of its map.
    """

    first: Numbers
    last: Numbers
    inner: Flags

    @classmethod
    def of_image(cls, size: int) -> Self:
        """Return what the `size` pixels of an image see: themselves."""
        return cls(np.arange(size), np.arange(size), np.ones(size, np.bool_))

    def __len__(self) -> int:
        return len(self.first)

    def take(self, cells: Numbers, used: Flags | None = None) -> "Axis":
        """Return what a map sees whose cells take these.

        Args:
            cells: (M, K); below 0 or from N on is padding.
            used: (M, K), where an entry of `cells` is one; None: everywhere.
        """
        here = (cells >= 0) & (cells < len(self))
        used = np.ones_like(here) if used is None else used
        index, seen = cells.clip(0, len(self) - 1), here & used
        return Axis(
            np.where(seen, self.first[index], NOTHING).min(axis=1),
            np.where(seen, self.last[index], -NOTHING).max(axis=1),
            ((here & self.inner[index]) | ~used).all(axis=1),
        )

    def join(self, other: "Axis") -> "Axis":
        """Return what cells see that depend on both, cell by cell."""
        if other is self:
            return self
        return Axis(
            np.minimum(self.first, other.first),
            np.maximum(self.last, other.last),
            self.inner & other.inner,
        )


def window_cells(size: int, kernel: int, stride: int, padding: int, dilation: int) -> Numbers:
    """(M, K): the cells under the window of a convolution or a pooling, for `size` outputs."""
    return (np.arange(size) * stride - padding)[:, None] + np.arange(kernel) * dilation


def transposed_cells(
    size: int, kernel: int, stride: int, padding: int, dilation: int
) -> tuple[Numbers, Flags]:
    """(M, K) cells of a transposed convolution, and where there is one at all."""
    offset = np.arange(size)[:, None] + padding - np.arange(kernel) * dilation
    return offset // stride, offset % stride == 0


def resized_cells(size: int, before: int, taps: int, align_corners: bool = False) -> Numbers:
    """(M, K): the cells that resizing from `before` to `size` cells reads.

    Args:
        size: M.
        before: N.
        taps: 1 nearest, 2 linear, 4 cubic interpolation.
        align_corners: the outermost cells stay where they are.
    """
    places = np.arange(size)
    if taps == 1:
        return (places * before // size)[:, None]
    if align_corners:  # numerator and denominator of the place in the map before
        top, below = places * (before - 1), max(size - 1, 1)
    else:
        top, below = (2 * places + 1) * before - size, 2 * size
    between = (top % below != 0)[:, None]
    reach = np.arange(1 - taps // 2, 1 + taps // 2) * between
    cells: Numbers = ((top // below)[:, None] + reach).clip(0, before - 1)
    return cells
