"""Tiles of a scene, and where boxes lie in them.

Shapes: M tiles, N boxes. Boxes and tiles are xyxy in px of the scene. The tiles form a grid:
columns by rows, the last of each shifted inwards. An edge of a tile is an inner edge unless it is
the edge of the scene: beyond an inner edge the scene goes on.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfla.errors import ConfigError, shorten

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Axis:
    """The columns (or rows) of tiles along one side of a scene.

    Attributes:
        starts: First px of each, rising.
        ends: Px behind the last of each, rising.
        inner_starts: The same, -inf where the tile begins at the scene's edge.
        inner_ends: The same, inf where the tile ends at the scene's edge.
    """

    starts: Floats
    ends: Floats
    inner_starts: Floats
    inner_ends: Floats

    @classmethod
    def of(cls, starts: Integers, ends: Integers, length: int) -> "Axis":
        """Sort the different intervals of a scene of `length` px."""
        pairs = np.unique(np.stack([starts, ends], axis=1), axis=0).astype(np.float64)
        low, high = pairs[:, 0], pairs[:, 1]
        if (np.diff(low) <= 0).any() or (np.diff(high) <= 0).any():
            raise ConfigError("tiles must form a grid of columns and rows, as plan_tiles makes it")
        inner_low = np.where(low <= 0, -np.inf, low)
        return cls(low, high, inner_low, np.where(high >= length, np.inf, high))

    def holding(self, low: Floats, high: Floats, margin: float) -> tuple[Integers, Integers]:
        """Return first and last column that hold low..high with more than `margin` px to spare.

        Edges of the scene need no margin. The first is behind the last where there is none.
        """
        first = np.searchsorted(self.inner_ends, high + margin, side="right")
        last = np.searchsorted(self.inner_starts, low - margin, side="left") - 1
        return first, last

    def meeting(self, low: Floats, high: Floats) -> tuple[Integers, Integers]:
        """Return first and last column that low..high has more than a border in common with."""
        first = np.searchsorted(self.ends, low, side="right")
        last = np.searchsorted(self.starts, high, side="left") - 1
        return first, last


class TileGrid:
    """The tiles of a scene as a grid; some may be left out (nothing but nodata).

    Args:
        tiles: (M, 4) int64, in any order.
        shape: Height and width of the scene, px.

    Raises:
        ConfigError: The tiles are no (M, 4) whole numbers, form no grid, or one is there twice; the
            shape is not two numbers.
    """

    def __init__(self, tiles: Any, shape: tuple[int, int]):
        given = _as_tiles(tiles)
        height, width = _as_shape(shape)
        self.x = Axis.of(given[:, 0], given[:, 2], width)
        self.y = Axis.of(given[:, 1], given[:, 3], height)
        column = np.searchsorted(self.x.starts, given[:, 0])
        row = np.searchsorted(self.y.starts, given[:, 1])
        self.rank = row * len(self.x.starts) + column  # (M,) place of each given tile, row by row
        if len(np.unique(self.rank)) < len(self.rank):
            raise ConfigError("a tile is there twice")
        self.present = np.zeros((len(self.y.starts), len(self.x.starts)), np.int64)
        self.present.flat[self.rank] = 1
        self._below = np.zeros(np.add(self.present.shape, 1), np.int64)
        self._below[1:, 1:] = self.present.cumsum(axis=0).cumsum(axis=1)

    def row_column(self, rank: Integers) -> tuple[Integers, Integers]:
        """Row and column of tiles."""
        return np.divmod(rank, len(self.x.starts))

    def origin(self, rank: Integers) -> Floats:
        """Return (N, 2) the left upper corner of tiles, px of the scene."""
        row, column = self.row_column(rank)
        return np.stack([self.x.starts[column], self.y.starts[row]], axis=1)

    def inner_edges(self, rank: Integers) -> Floats:
        """Return (N, 4) xyxy px of tiles, infinite where the scene ends: nothing is cut there."""
        row, column = self.row_column(rank)
        low = [self.x.inner_starts[column], self.y.inner_starts[row]]
        return np.stack([*low, self.x.inner_ends[column], self.y.inner_ends[row]], axis=1)

    def clearance(self, boxes: Floats, rank: Integers) -> Floats:
        """Return (N,) px from each box to the nearest inner edge of a tile.

        Negative where the box reaches over it, inf where the tile has no inner edge.
        """
        edges = self.inner_edges(rank)
        distances = np.minimum(boxes[:, :2] - edges[:, :2], edges[:, 2:] - boxes[:, 2:])
        least: Floats = distances.min(axis=1, initial=np.inf)
        return least

    def depth(self, boxes: Floats, rank: Integers) -> Floats:
        """Return (N,) px from an inner edge of a tile to the far side of each box, the least.

        A box of small depth lies in a strip along that edge.
        """
        edges = self.inner_edges(rank)
        distances = np.minimum(boxes[:, 2:] - edges[:, :2], edges[:, 2:] - boxes[:, :2])
        least: Floats = distances.min(axis=1, initial=np.inf)
        return least

    def held(self, boxes: Floats, margin: float) -> Integers:
        """Count the tiles that hold each box with more than `margin` px to all inner edges."""
        columns = self.x.holding(boxes[:, 0], boxes[:, 2], margin)
        return self._count(columns, self.y.holding(boxes[:, 1], boxes[:, 3], margin))

    def met(self, boxes: Floats) -> Integers:
        """Count the tiles that each box reaches into."""
        columns = self.x.meeting(boxes[:, 0], boxes[:, 2])
        return self._count(columns, self.y.meeting(boxes[:, 1], boxes[:, 3]))

    def _count(
        self, columns: tuple[Integers, Integers], rows: tuple[Integers, Integers]
    ) -> Integers:
        """Count the tiles in ranges of columns and rows, first to last."""
        (left, right), (top, bottom) = columns, rows
        right, bottom = np.maximum(right + 1, left), np.maximum(bottom + 1, top)
        table = self._below
        inside: Integers = (
            table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
        )
        return inside


def _as_shape(shape: Any) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in shape)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"shape={shorten(shape)}: must be height and width, px") from None
    return height, width


def _as_tiles(tiles: Any) -> Integers:
    """Return tiles (M, 4) as an array.

    Raises:
        ConfigError: They are something else.
    """
    try:
        given = np.asarray(tiles, np.float64)
    except (TypeError, ValueError):  # rows of different lengths, words
        given = np.zeros(1)
    if not given.size:
        return np.zeros((0, 4), np.int64)
    if given.ndim != 2 or given.shape[1] != 4 or (given != np.floor(given)).any():
        raise ConfigError(
            "tiles must be (M, 4) whole numbers, x1, y1, x2, y2 in px, as plan_tiles makes them"
        )
    return given.astype(np.int64)
