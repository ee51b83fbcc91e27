"""Boxes and pairs of boxes as columns: one array for each property, no object for each box.

Shapes: N boxes, K pairs.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from rfla.predict.tiles import Floats, Integers, Mask


@dataclass(frozen=True)
class Found:
    """Boxes of some tiles, in the order of tiles row by row, and of each tile's own boxes.

    Attributes:
        boxes: (N, 4) px of the scene.
        scores: (N,).
        labels: (N,).
        tile: (N,) number of the tile, row by row.
        index: (N,) place among the boxes of its tile.
        clearance: (N,) px to the nearest inner edge of its tile.
        dropped: (N,) has given way to a box of another tile.
    """

    boxes: Floats
    scores: Floats
    labels: Integers
    tile: Integers
    index: Integers
    clearance: Floats
    dropped: Mask

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: Any) -> "Found":
        """Return a selection, by mask or indices."""
        return Found(*(getattr(self, part.name)[rows] for part in fields(self)))

    @classmethod
    def joined(cls, parts: "list[Found]") -> "Found":
        """Return several one behind the other."""
        columns = ([getattr(part, field.name) for part in parts] for field in fields(cls))
        return cls(*(np.concatenate(column) for column in columns))


@dataclass(frozen=True)
class Links:
    """Pairs of boxes taken for one object.

    Attributes:
        a: (K,) one box.
        b: (K,) the other.
        alike: (K,) how much of each other they are, 0 to 1.
    """

    a: Integers
    b: Integers
    alike: Floats

    def take(self, rows: Mask) -> "Links":
        """Return a selection."""
        return Links(self.a[rows], self.b[rows], self.alike[rows])

    def renumbered(self, places: Integers) -> "Links":
        """Return the same pairs after box i became box `places[i]`."""
        return Links(places[self.a], places[self.b], self.alike)

    @classmethod
    def joined(cls, parts: "list[Links]") -> "Links":
        """Return several one behind the other."""
        nothing = np.zeros(0, np.int64)
        everything = [cls(nothing, nothing, np.zeros(0)), *parts]
        columns = ([getattr(part, field.name) for part in everything] for field in fields(cls))
        return cls(*(np.concatenate(column) for column in columns))
