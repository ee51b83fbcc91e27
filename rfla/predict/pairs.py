"""Which boxes overlap, and which form connected groups: by sorting, without a loop over boxes.

Shapes: N boxes, K pairs. Boxes are xyxy px, float64.
"""

from collections.abc import Iterator

import numpy as np

from rfla.predict.tiles import Floats, Integers, Mask

AT_A_TIME = 1 << 20  # candidate pairs in memory at once


def areas(boxes: Floats) -> Floats:
    """Return (N,) px^2; 0 for a box that is turned inside out."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return np.maximum(width, 0) * np.maximum(height, 0)


def intersections(a: Floats, b: Floats) -> Floats:
    """Return (K,) px^2 that the boxes of each pair share."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    return areas(np.concatenate([low, high], axis=1))


def overlapping_pairs(
    boxes: Floats,
    tile: Integers,
    label: Integers,
    at_edge: Mask,
    least: float = 0.0,
    known: int = 0,
) -> Iterator[tuple[Integers, Integers]]:
    """Yield the pairs of boxes of different tiles that overlap, a part at a time, each pair once.

    Two boxes that no edge can have cut are paired only if they have one label and can share `least`
    of the larger; such a box and a larger one at an edge only if they can share `least` of it.

    The level of a box is that whose side, 2^level, is just larger than it. A box looks for those of
    its own level and of every higher one: in the row of its centre and in the two beside it, whose
    height follows from the level, and there as far as their centres can be.

    Args:
        boxes: (N, 4).
        tile: (N,) tile that each was found in.
        label: (N,).
        at_edge: (N,).
        least: Share of the larger box.
        known: Pairs of two boxes before this one are left out.

    Yields:
        Indices (k,) and (k,).
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=1.0)
    level = np.ceil(np.log2(sides)).astype(np.int64)
    octaves = -np.log2(least) if least else np.inf
    _, group = np.unique(label, return_inverse=True)
    everybody = np.zeros_like(group)
    for high in np.unique(level):
        here, lower = level == high, level < high
        near = lower & (level >= high - octaves)
        searches = (
            (0.0, everybody, (here | lower) & at_edge, here),
            (least, everybody, near & ~at_edge, here & at_edge),
            (least, group, (here | near) & ~at_edge, here & ~at_edge),
        )
        for shared, groups, lookers, members in searches:
            looking, seen = np.flatnonzero(lookers), np.flatnonzero(members)
            for a, b in _neighbours(boxes, groups, looking, seen, 2.0**high, shared):
                # Within a level both boxes of a pair look for each other, if they are of one kind.
                wanted = (level[a] < high) | (a < b) | (at_edge[a] != at_edge[b])
                wanted &= (tile[a] != tile[b]) & ((a >= known) | (b >= known))
                a, b = a[wanted], b[wanted]
                meet = intersections(boxes[a], boxes[b]) > 0
                yield a[meet], b[meet]


def _neighbours(
    boxes: Floats, group: Integers, lookers: Integers, members: Integers, side: float, least: float
) -> Iterator[tuple[Integers, Integers]]:
    """Yield all pairs of a looker and a member that may overlap, and some others, in parts.

    Where boxes share `least` of the larger one they share as much of its width and of its height.
    So their centres are at most `width / 2 + (1 / 2 - least) * side` apart, with the width of the
    looker, and no more than `(1 - least) * side`.

    Args:
        boxes: (N, 4).
        group: (N,) from 0; only boxes of one group meet.
        lookers: Boxes, no side longer than `side`.
        members: The same.
        side: Px.
        least: Share of the larger box.
    """
    if not len(lookers) or not len(members):
        return
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    x = x - x.min()
    row = np.floor(y / ((1 - least) * side))
    row -= row.min() - 1
    width = (boxes[lookers, 2] - boxes[lookers, 0]).clip(min=0)
    reach = width / 2 + (0.5 - least) * side

    # One number for group, row and place in the row; rows are further apart than anybody looks.
    span = x.max() + 2 * reach.max() + 1
    key = (group * (row.max() + 2) + row) * span + x
    reach += 4 * np.spacing(key.max())  # what rounding may take away
    members = members[np.argsort(key[members], kind="stable")]
    for step in (-span, 0, span):
        first = np.searchsorted(key[members], key[lookers] + step - reach, side="left")
        behind = np.searchsorted(key[members], key[lookers] + step + reach, side="right")
        for looker, place in _expand(first, behind):
            yield lookers[looker], members[place]


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
