"""Cut the boxes of a scene into tiles.

What a tile cuts off is decided by the visible share of a box: at or above `keep_visible` the
visible part is the box, below it the visible part becomes an ignored region, because its pixels are
still there and are no background.
"""

import zlib
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfla.data.record import NO_CLASS, ImageRecord
from rfla.data.tiles import Window


def tile_name(file_name: str, window: Window) -> str:
    """Return the name of a tile: `{scene}__{x}_{y}.png`, in the directory of its scene."""
    path = PurePosixPath(file_name)
    return str(path.with_name(f"{path.stem}__{window[0]}_{window[1]}.png"))


def visible_shares(boxes: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    """Return the share of each box that lies in the window.

    For a box without area, whether its centre does.

    Args:
        boxes: (n, 4) xyxy px.
        window: Of the same image.

    Returns:
        (n,) between 0 and 1.
    """
    inside = _clip(boxes, window)
    sides = np.maximum(inside[:, 2:] - inside[:, :2], 0)
    whole = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    area = whole.prod(axis=1)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    held = ((centres >= window[:2]) & (centres < window[2:])).all(axis=1)
    return np.where(area > 0, sides.prod(axis=1) / np.where(area > 0, area, 1), held)


def cut(record: ImageRecord, window: Window, keep_visible: float) -> ImageRecord:
    """Return the part of a record that a window shows, in px of the window.

    Ids are left out (a box can be in several tiles), the window is noted.

    Args:
        record: The whole scene.
        window: The tile.
        keep_visible: Share of a box, 0 to 1, from which its visible part stays an object.
    """
    shares = visible_shares(record.boxes, window)
    seen = np.flatnonzero(shares > 0)
    part, shares = record.select(seen), shares[seen]
    origin = np.array([window[0], window[1]] * 2, np.float64)
    part.boxes = _clip(part.boxes, window) - origin
    hidden = (shares < keep_visible - 1e-9) & (part.labels != NO_CLASS)
    part.ignore = part.ignore | hidden
    part.crowd = part.crowd | hidden
    part.attributes = _cut_attributes(part.attributes, shares >= 1 - 1e-9, origin)
    part.ids = np.full(len(part), -1, np.int64)
    part.image_id = None
    part.width, part.height = window[2] - window[0], window[3] - window[1]
    part.window = window
    part.file_name = tile_name(record.file_name, window)
    return part


def _cut_attributes(
    attributes: dict[str, NDArray[Any]], whole: NDArray[np.bool_], origin: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    """Shift polygons; a stated area or polygon holds only for a box that is whole."""
    result = dict(attributes)
    if "polygon" in result:
        result["polygon"] = np.where(
            whole[:, None], result["polygon"] - np.tile(origin[:2], 4), np.nan
        )
    if "area" in result:
        result["area"] = np.where(whole, result["area"], np.nan)
    return result


def _clip(boxes: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    low = np.array([window[0], window[1]] * 2, np.float64)
    high = np.array([window[2], window[3]] * 2, np.float64)
    return np.clip(boxes, low, high)


def keeps_empty(name: str, share: float) -> bool:
    """Decide whether a tile without objects stays: by its name, so that every run decides alike."""
    return zlib.crc32(name.encode()) < share * 2**32
