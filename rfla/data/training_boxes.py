"""Which boxes a training learns: clipped to their image, of some size, each once.

Shapes: M boxes of a split. Boxes are xyxy px of the original image.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfla.data.annotations import Annotations
from rfla.data.record import is_object

MIN_SIDE = 1.0  # px; boxes with a side under this are no training target, as in the official parse
ROUNDING = 2e-6  # of an image's side: six digits of a share (YOLO) or of a float32 move a side less
_ODD = np.uint64(0x9E3779B97F4A7C15)  # multiplying by it spreads a number over 64 bits (Knuth)


def clipped_boxes(index: Annotations) -> NDArray[np.float32]:
    """Return (M, 4) the part of each box that lies in its image, px."""
    limits = index.image_hw[index.image_index][:, [1, 0, 1, 0]].astype(np.float32)
    return np.clip(np.asarray(index.boxes, np.float32), 0, limits)


def repeated_boxes(index: Annotations, boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return (M,) which boxes (M, 4) are another of their image, class and kind once more."""
    corners = np.ascontiguousarray(boxes).view(np.int32).T
    columns = [index.image_index, index.labels, is_object(index), *corners]
    # Rows are compared where their hashes meet alone: sorting all of them takes far longer.
    hashes = np.zeros(len(boxes), np.uint64)
    for column in columns:
        hashes = (hashes ^ column.astype(np.int64).view(np.uint64)) * _ODD
        hashes ^= hashes >> np.uint64(29)
    in_order = np.sort(hashes)
    suspects = np.flatnonzero(np.isin(hashes, in_order[1:][in_order[1:] == in_order[:-1]]))
    rows = np.column_stack([column[suspects] for column in columns])
    repeated = np.zeros(len(boxes), np.bool_)
    repeated[suspects] = True
    repeated[suspects[np.unique(rows, axis=0, return_index=True)[1]]] = False
    return repeated


def at_least_min_side(sides: NDArray[Any], image_hw: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Tell which boxes have both sides of `MIN_SIDE` or more, but for the rounding of their file.

    A side of exactly 1 px is 0.9996 px after six digits of its share of 1360 px.

    Args:
        sides: (M, 2) width and height, px.
        image_hw: (M, 2) height and width of the image of each box, px.
    """
    allowed = MIN_SIDE - ROUNDING * image_hw[:, ::-1]
    return np.asarray((sides >= allowed).all(axis=1))
