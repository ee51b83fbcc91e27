"""Where the objects of a scene are dense: a coloured map over the picture, by matplotlib."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rfla.errors import printable
from rfla.pictures.boxes import fit_into
from rfla.pictures.curves import new_figure, write_figure

Array = np.ndarray[Any, np.dtype[Any]]

CELLS, FEWEST = 100, 10  # along the long side, at most and at least
FULLEST = 6  # objects in the fullest cell, so that the colours tell more than where objects are
LONG_SIDE, SHORT_SIDE = 11.0, 3.0  # inches of the map: the long side, and the least of the other
GROUND = 1200  # px: long side of the picture below the map


def cell_side(boxes: Array, shape: tuple[int, int]) -> int:
    """Return the side of a cell of the map: 1, 2 or 5 times a power of ten px.

    The smallest cell whose fullest instance holds `FULLEST` objects or more; between `FEWEST` and
    `CELLS` of them lie along the long side.
    """
    longest = max(shape)
    sides: list[int] = [step * 10**power for power in range(7) for step in (1, 2, 5)]
    allowed = [side for side in sides if longest / CELLS <= side <= longest / FEWEST]
    for side in allowed:
        if count_cells(boxes, shape, side).max() >= FULLEST:
            return side
    return allowed[-1] if allowed else 1


def count_cells(boxes: Array, shape: tuple[int, int], side: int) -> Array:
    """Count the centres of (N, 4) boxes in the cells of a picture; (rows, columns)."""
    rows, columns = -(-shape[0] // side), -(-shape[1] // side)
    x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2).T
    column = np.clip(x // side, 0, columns - 1).astype(np.int64)
    row = np.clip(y // side, 0, rows - 1).astype(np.int64)
    return np.bincount(row * columns + column, minlength=rows * columns).reshape(rows, columns)


def plot_density(
    path: Path, image: Array, boxes: Array, shape: tuple[int, int], title: str
) -> None:
    """Write a map of how many objects there are where.

    Args:
        path: A PNG.
        image: (h, w, 3) uint8 RGB, the scene in any size.
        boxes: (N, 4) px of the scene.
        shape: Height and width of the scene, px.
        title: Stands above, before the number of objects.
    """
    height, width = shape
    side = cell_side(boxes, shape)
    counts = count_cells(boxes, shape, side)
    scale = LONG_SIDE / max(height, width)
    sides = (max(width * scale, SHORT_SIDE), max(height * scale, SHORT_SIDE))
    figure, axes = new_figure(1, 1, sides[0] + 1.2, sides[1] + 0.8)
    axis = axes[0, 0]
    # Cells at the far borders may reach over the picture; their counts are those of its part.
    reach = (0, counts.shape[1] * side, counts.shape[0] * side, 0)
    axis.imshow(_grey(image), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    shown = np.ma.masked_equal(counts, 0)
    # The scale begins at 1: cells without objects show the picture.
    fullest = max(int(counts.max()), 2)
    colours = axis.imshow(shown, cmap="plasma", vmin=1, vmax=fullest, alpha=0.85, extent=reach)
    axis.set(xlim=(0, width), ylim=(height, 0), xlabel="x in px", ylabel="y in px")
    axis.set_aspect("auto")
    axis.grid(visible=False)
    axis.set_title(f"{printable(title)}: {len(boxes):,} objects", parse_math=False)
    bar = figure.colorbar(colours, ax=axis, label=f"objects in a cell of {side} x {side} px")
    bar.ax.yaxis.get_major_locator().set_params(integer=True)
    write_figure(figure, path)


def _grey(image: Array) -> Array:
    """Return the picture below the map: grey, small, and pale enough for colours to show."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small, _ = fit_into(grey, grey.shape, GROUND)
    return np.asarray(small * 0.6 + 40, np.uint8)
