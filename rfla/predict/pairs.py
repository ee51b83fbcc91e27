"""Which boxes overlap, and which hang together: by sorting, without a loop over boxes.

Shapes: N boxes, K pairs. Boxes are xyxy px, float64.
"""

from collections.abc import Iterator

import numpy as np

from rfla.predict.tiles import Floats, Integers

AT_A_TIME = 1 << 20  # candidate pairs in memory at once


def areas(boxes: Floats) -> Floats:
    """Return (N,) px^2; 0 for a box that is turned inside out."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return np.maximum(width, 0) * np.maximum(height, 0)


def intersections(a: Floats, b: Floats) -> Floats:
    """Return (K,) px^2 that the boxes of each pair share."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    return areas(np.concatenate([low, high], axis=1))


def overlapping_pairs(boxes: Floats, tile: Integers) -> Iterator[tuple[Integers, Integers]]:
    """Yield the pairs of boxes of different tiles that overlap, a part at a time, each pair once.

    A box belongs to the level whose cells, of side 2^level, are just larger than it, and there to
    the cell of its centre. Two boxes that overlap have centres less than one cell of the larger
    one's level apart, so each box looks into 3 x 3 cells of its own level and of every higher one.

    Args:
        boxes: (N, 4).
        tile: (N,) tile that each was found in.

    Yields:
        Indices (k,) and (k,).
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=1.0)
    level = np.ceil(np.log2(sides)).astype(np.int64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    for high in np.unique(level):
        cells = np.floor(centres / 2.0**high).astype(np.int64)
        cells -= cells.min(axis=0) - 1
        columns = int(cells[:, 0].max()) + 2
        key = cells[:, 1] * columns + cells[:, 0]
        members = np.flatnonzero(level == high)
        members = members[np.argsort(key[members], kind="stable")]
        lookers = np.flatnonzero(level <= high)
        for step in (-columns, 0, columns):
            first = np.searchsorted(key[members], key[lookers] + step - 1, side="left")
            behind = np.searchsorted(key[members], key[lookers] + step + 1, side="right")
            for looker, place in _expand(first, behind):
                a, b = lookers[looker], members[place]
                # Within a level both boxes of a pair look for each other.
                wanted = ((level[a] < high) | (a < b)) & (tile[a] != tile[b])
                a, b = a[wanted], b[wanted]
                meet = intersections(boxes[a], boxes[b]) > 0
                yield a[meet], b[meet]


def _expand(first: Integers, behind: Integers) -> Iterator[tuple[Integers, Integers]]:
    """Yield (row, place) for each place of the ranges first..behind of each row, in parts."""
    counts = behind - first
    total = counts.cumsum()
    start = 0
    while start < len(counts):
        done = total[start - 1] if start else 0
        stop = max(int(np.searchsorted(total, done + AT_A_TIME, side="right")), start + 1)
        part = counts[start:stop]
        rows = np.repeat(np.arange(start, stop), part)
        # Number the places of all rows through, then move each row to where its range begins.
        places = np.arange(len(rows)) + np.repeat(first[start:stop] - part.cumsum() + part, part)
        yield rows, places
        start = stop


def connected(count: int, a: Integers, b: Integers) -> Integers:
    """Label the connected components of a graph.

    Args:
        count: Nodes.
        a: (K,) one end of each edge.
        b: (K,) the other end.

    Returns:
        (count,) lowest node of each node's component.
    """
    label = np.arange(count)
    while True:
        lowest = np.minimum(label[a], label[b])
        following = label.copy()
        np.minimum.at(following, label[a], lowest)
        np.minimum.at(following, label[b], lowest)
        following = following[following]
        if (following == label).all():
            return label
        label = following


def first_of_runs(*keys: Integers) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Mark where any of some sorted keys differs from the row before."""
    starts = np.ones(len(keys[0]), bool)
    starts[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    return starts
