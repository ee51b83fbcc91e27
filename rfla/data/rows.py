"""What a reader of annotations hands to the index: images in file order, boxes in any order."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

REGIONS = "boxes of category 0 or -1, which is no class, read as ignored regions"
UNOPENED = "images that cannot be opened"
# the entry of `Rows.counts` for what a tolerant reader skipped
REFUSED = "rows that training refuses left out"


@dataclass
class Rows:
    """N images and M boxes as they are written in the files.

    Attributes:
        source: The annotation file or directory, for messages.
        names: Class names in label order.
        category_ids: Category id of each label in the files.
        paths: N absolute image paths.
        image_ids: N ids.
        image_hw: N pairs of height and width, px.
        image_index: (M,) int64, row of the image of each box.
        boxes: (M, 4) float64 xyxy px.
        sides: (M, 2) float64 width and height px as the file states them (x1 + w - x1 is not always
            w).
        labels: (M,) int64.
        ignore: (M,) bool.
        crowd: (M,) bool.
        area: (M,) float64 px^2.
        counts: What was repaired on reading.
        examples: First place of each entry of `counts`.
    """

    source: Path
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    paths: list[str]
    image_ids: list[int | str]
    image_hw: list[tuple[int, int]]
    image_index: NDArray[np.int64]
    boxes: NDArray[np.float64]
    sides: NDArray[np.float64]
    labels: NDArray[np.int64]
    ignore: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float64]
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def note(self, what: str, where: str, count: int = 1) -> None:
        """Count a repair and remember its first place."""
        self.counts[what] += count
        self.examples.setdefault(what, where)

    @staticmethod
    def join(parts: Sequence["Rows"]) -> "Rows":
        """All images and boxes of several parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        offsets = np.cumsum([0, *(len(part.paths) for part in parts[:-1])])
        return Rows(
            source=parts[0].source,
            names=parts[0].names,
            category_ids=parts[0].category_ids,
            paths=[path for part in parts for path in part.paths],
            image_ids=[identity for part in parts for identity in part.image_ids],
            image_hw=[size for part in parts for size in part.image_hw],
            image_index=np.concatenate(
                [part.image_index + shift for part, shift in zip(parts, offsets, strict=True)]
            ),
            boxes=np.concatenate([part.boxes for part in parts]),
            sides=np.concatenate([part.sides for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
            ignore=np.concatenate([part.ignore for part in parts]),
            crowd=np.concatenate([part.crowd for part in parts]),
            area=np.concatenate([part.area for part in parts]),
        )
