"""Where the objects of a scene are dense: a coloured map over the picture, by matplotlib."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rfla.errors import counted
from rfla.pictures.boxes import fit_into
from rfla.pictures.curves import new_figure, write_figure
from rfla.pictures.text import short_name

Array = np.ndarray[Any, np.dtype[Any]]

CELLS, FEWEST = 100, 10  # along the long side, at most and at least
FULLEST = 6  # objects in the fullest cell, so that the colours tell more than where objects are
LONG_SIDE, LEAST_SIDE = 10.5, 3.0  # inches: the long side of the map, the least of the figure
WIDE = 2  # times as wide as high: the bar of colours lies below the map
LETTERS = 11  # of the title in an inch
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
    wide = width > WIDE * height
    beside, below = (0.8, 1.8) if wide else (2.0, 0.8)  # inches for the bar, ticks and title
    across = max(width * scale + beside, LEAST_SIDE)
    figure, axes = new_figure(1, 1, across, max(height * scale + below, LEAST_SIDE))
    axis = axes[0, 0]
    # Cells at the far borders may reach over the picture; their counts are those of its part.
    reach = (0, counts.shape[1] * side, counts.shape[0] * side, 0)
    axis.imshow(_grey(image), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    if counts.any():
        label = f"objects in a cell of {side} x {side} px"
        bar = figure.colorbar(
            _draw_cells(axis, counts, reach),
            ax=axis,
            label=label,
            location="bottom" if wide else "right",
            aspect=40,
        )
        bar.locator.set_params(integer=True, min_n_ticks=1)
    axis.set(xlim=(0, width), ylim=(height, 0), xlabel="x in px", ylabel="y in px")
    axis.grid(visible=False)
    name = short_name(title, int(LETTERS * across) - 17)
    figure.suptitle(f"{name}: {counted(len(boxes), 'object')}", fontsize=10, parse_math=False)
    write_figure(figure, path)


def _draw_cells(axis: Any, counts: Array, reach: tuple[int, int, int, int]) -> Any:
    """Draw a colour for each number of objects; cells without objects show the picture."""
    from matplotlib import colormaps

    fullest = int(counts.max())
    colours = colormaps["plasma"].resampled(fullest)
    limits = {"vmin": 0.5, "vmax": fullest + 0.5}  # so that one object has a colour of its own
    shown = np.ma.masked_equal(counts, 0)
    return axis.imshow(shown, cmap=colours, **limits, alpha=0.85, extent=reach)


def _grey(image: Array) -> Array:
    """Return the picture below the map: grey, small, and pale enough for colours to show."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small, _ = fit_into(grey, grey.shape, GROUND)
    return np.asarray(small * 0.6 + 40, np.uint8)
