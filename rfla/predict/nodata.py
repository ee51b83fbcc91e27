"""Pixels of a raster that hold nothing: slices of nothing else are left out, the rest is painted.

Shapes: pixels (h, w, 3) uint8 RGB, valid (h, w) bool.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from rfla.cfg.model_schema import NormalizeConfig
from rfla.data.images import Image
from rfla.predict.tiles import Mask

# px: a hole of nodata is at least so wide. Files state as nodata what is also an ordinary value
# (255, or 0), and a few bright or dark pixels of an object are no hole.
HOLE = 17

Fill = tuple[int, int, int]


def fill_of(normalize: NormalizeConfig) -> Fill:
    """Return the RGB colour that becomes 0 in the network, as the padding is."""
    mean: Sequence[float] = normalize.mean
    red, green, blue = mean if normalize.channels == "rgb" else mean[::-1]
    return round(red), round(green), round(blue)


def without_nodata(pixels: Image, valid: Mask | None, fill: Fill) -> Image | None:
    """Return a slice with its nodata painted over, None where there is nothing else.

    Args:
        pixels: Of the slice; not changed.
        valid: Where its file has data; None: everywhere.
        fill: Colour of what has none.
    """
    if valid is None or valid.all():
        return pixels
    if not valid.any():
        return None
    holes = holes_in(valid)
    if not holes.any():
        return pixels
    painted = pixels.copy()
    painted[holes] = fill
    return painted


def holes_in(valid: Mask) -> Mask:
    """Return where squares of `HOLE` px fit into what has no data; beyond the slice is none."""
    beyond = np.pad((~valid).astype(np.uint8), HOLE, constant_values=1)
    opened = cv2.morphologyEx(beyond, cv2.MORPH_OPEN, np.ones((HOLE, HOLE), np.uint8))
    inside: Mask = opened[HOLE:-HOLE, HOLE:-HOLE].astype(bool) & ~valid
    return inside
