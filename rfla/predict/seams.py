"""Merge the detections of tiles, one row of tiles at a time: nothing twice, nothing lost.

The argument, its limits and pictures are in docs/prediction.md. In short, for `merge="seam"`:

1. A box that no other tile reaches is passed on as it is: away from seams nothing is compared.
2. A box that ends at an inner edge of its tile may be part of an object. It gives way where another
   tile holds its place clear of all inner edges, and so saw the object whole.
3. Boxes of one class that two tiles found in one place are one object: each is the other's best
   match. Of a group of such boxes the best that is clear of the inner edges of its tile stays,
   unchanged.
4. Only where no tile of the group saw the whole, an object larger than the overlap, the parts are
   joined.

Shapes: M tiles, N boxes, K pairs. Boxes are xyxy px of the scene, float64.
"""

from dataclasses import replace

import numpy as np

from rfla.names import MergeMetric, MergeRule
from rfla.predict.columns import Found, Links
from rfla.predict.pairs import (
    areas,
    connected,
    first_of_runs,
    intersections,
    overlapping_pairs,
)
from rfla.predict.tiles import Floats, Integers, Mask, TileGrid

EDGE = 1.0  # px: a box that ends this near to an inner edge is taken for cut
NEAR = 4.0  # px: one that ends this near may be cut; networks end cut boxes some px short
COVERED = 0.5  # share of a box that another must cover to show the same object
MATCH = 0.3  # overlap from which the best match of another tile is the same object
STRONGER = (0.5, 0.7, 0.9)  # overlaps asked for where matches contradict each other
KNOWN = 0.5  # the same for the known rules, NMS and NMM, as others set it
LEAST = 0.25  # share of the larger box: below all of these, so that rounding does not matter


class SeamMerger:
    """Takes the boxes of one row of tiles after the other and gives back those that are settled.

    Memory holds the boxes that reach into the next row of tiles, and no others, so that it does not
    grow with the height of a scene.

    Args:
        grid: The tiles.
        rule: `seam` as above; `nms` keeps the best score of overlapping boxes, `nmm` joins them
            to one, as others do; `none` passes everything on.
        metric: Overlap as a share of the union (`iou`) or of the smaller box (`ios`).
        classes: Compare boxes of different classes too.
    """

    def __init__(
        self,
        grid: TileGrid,
        rule: MergeRule = "seam",
        metric: MergeMetric = "iou",
        classes: bool = False,
    ):
        self.grid, self.rule, self.metric, self.classes = grid, rule, metric, classes
        rows = np.flatnonzero(grid.present.any(axis=1))
        self._next_start = dict(zip(rows[:-1], grid.y.starts[rows[1:]], strict=True))
        self._open: Found | None = None
        self._links = Links.joined([])

    def add(self, row: int, found: Found) -> Found:
        """Take the boxes of one row of tiles, rows from top to bottom; return what is settled."""
        if self.rule == "none":
            return found
        # Away from seams a box can meet no other: it is settled at once, and nothing is compared.
        meets = (self.grid.met(found.boxes) > 1) | (found.clearance < 0)
        settled, at_seams = found.take(~meets), found.take(meets)
        if self.rule == "seam":
            at_seams = replace(at_seams, dropped=self._cut_and_held_elsewhere(at_seams))
        pending = at_seams if self._open is None else Found.joined([self._open, at_seams])
        pending = self._link(pending, len(pending) - len(at_seams))
        return Found.joined([settled, self._close(pending, row)])

    def _cut_and_held_elsewhere(self, found: Found) -> Mask:
        """Boxes that end at an inner edge where another tile sees the place whole (rule 2).

        So do slivers, which lie in a strip of NEAR px along the edge. They go whether or not that
        tile found something: a part of an object says little against a look at the whole.
        """
        # Networks end the box of a cut object at the edge, or some px before it.
        cut = found.clearance <= EDGE
        cut |= self.grid.depth(found.boxes, found.tile) <= NEAR
        return cut & (self.grid.held(found.boxes, NEAR) > 0)

    def _link(self, pending: Found, known: int) -> Found:
        """Link the new boxes (those from `known` on) with what they overlap in other tiles."""
        # Pairs of two older boxes were compared when the later of them came.
        pairs = self._compare(pending, known)
        same = (pending.labels[pairs.a] == pending.labels[pairs.b]) | self.classes
        matches = pairs.take(same & (pairs.alike >= (MATCH if self.rule == "seam" else KNOWN)))
        if self.rule == "seam":
            matches = matches.take(mutually_best(matches, pending.tile))
            dropped = pending.dropped.copy()
            dropped[self._giving_way(pending, pairs, matches)] = True
            pending = replace(pending, dropped=dropped)
        self._links = Links.joined([self._links, matches])
        return pending

    def _compare(self, found: Found, known: int) -> Links:
        """Return the pairs of overlapping boxes of different tiles that matter, one of them new.

        Thousands of boxes lie on each other where a network has not learnt much yet. One that no
        edge can have cut is compared as it is, so that it matches, and another gives way to it,
        only if they share `LEAST` of the larger box; and two of them only if they are of one class.
        """
        label = np.zeros_like(found.labels) if self.classes else found.labels
        at_edge = (found.clearance <= NEAR) & (self.rule == "seam")
        least = LEAST if self.metric == "iou" else 0.0
        parts = []
        for a, b in overlapping_pairs(found.boxes, found.tile, label, at_edge, least, known):
            parts.append(Links(a, b, self._alike(found, a, b)))
        return Links.joined(parts)

    def _alike(self, found: Found, a: Integers, b: Integers) -> Floats:
        """Return (K,) overlap of pairs.

        A box that its tile may have cut is compared with what that tile shows of the other.
        """
        first, second = found.boxes[a], found.boxes[b]
        # Half an object overlaps the whole one too little to be matched, so the whole one is cut
        # to the tile of the half before they are compared.
        if self.rule == "seam":
            tile_a, tile_b = (
                self.grid.inner_edges(found.tile[a]),
                self.grid.inner_edges(found.tile[b]),
            )
            whole = np.maximum(overhang(first, tile_b), overhang(second, tile_a)) <= NEAR
            cut_a, cut_b = found.clearance[a] <= NEAR, found.clearance[b] <= NEAR
            second_as_a_shows_it, first_as_b_shows_it = (
                cut_to(second, tile_a),
                cut_to(first, tile_b),
            )
            second = np.where((cut_a & ~whole)[:, None], second_as_a_shows_it, second)
            first = np.where((cut_b & ~whole)[:, None], first_as_b_shows_it, first)
        return overlaps(first, second, self.metric)

    def _giving_way(self, found: Found, pairs: Links, matches: Links) -> Integers:
        """Boxes near an inner edge whose object another tile found, and saw better (rule 2).

        Better means clear of its own inner edges, or, for objects about as large as the overlap,
        that the other box reaches over the edge. Then a match has the last word (rule 3).
        """
        tiles = len(self.grid.present.flat)
        box, other = np.concatenate([pairs.a, pairs.b]), np.concatenate([pairs.b, pairs.a])
        own, others = found.boxes[box], found.boxes[other]
        own_tile, other_tile = found.tile[box], found.tile[other]
        # The other box must hold most of this one, and the other tile all of it.
        covered = intersections(own, others) >= COVERED * areas(own)
        candidate = covered & (found.clearance[box] <= NEAR)
        candidate &= overhang(own, self.grid.inner_edges(other_tile)) <= EDGE

        clear = self.grid.clearance(own, other_tile) > NEAR
        # (box, tile of its match) as one integer: a box with a match in that tile is not alone.
        partners = np.concatenate(
            [
                matches.a * tiles + found.tile[matches.b],
                matches.b * tiles + found.tile[matches.a],
            ]
        )
        alone = ~np.isin(box * tiles + other_tile, partners)
        reaches_over = overhang(others, self.grid.inner_edges(own_tile)) > 0
        gives_way: Integers = box[candidate & (clear | (alone & reaches_over))]
        return gives_way

    def _close(self, pending: Found, row: int) -> Found:
        """Settle the groups that no later row can meet; keep the others open."""
        links = self._links
        group = connected(len(pending), links.a, links.b)
        # A group waits as long as one of its boxes reaches into the next row of tiles.
        reaching = pending.boxes[:, 3] > self._next_start.get(row, np.inf)
        waits = np.isin(group, group[reaching])
        link_waits = waits[links.a]
        self._open = pending.take(waits)
        self._links = links.take(link_waits).renumbered(np.cumsum(waits) - 1)

        closed = pending.take(~waits)
        links = links.take(~link_waits).renumbered(np.cumsum(~waits) - 1)
        if self.rule != "seam":
            return greedily(closed, links, join=self.rule == "nmm")
        group = objects(closed.tile, links)
        alive = ~closed.dropped
        return as_one_tile_saw_them(closed.take(alive), group[alive], self.grid)


def overhang(boxes: Floats, outer: Floats) -> Floats:
    """Return (K,) px by which each box reaches out of its outer one; 0 inside."""
    low, high = outer[:, :2] - boxes[:, :2], boxes[:, 2:] - outer[:, 2:]
    beyond: Floats = np.maximum(low, high).max(axis=1)
    return np.maximum(beyond, 0.0)


def cut_to(boxes: Floats, outer: Floats) -> Floats:
    """Return (K, 4) the part of each box in its outer one."""
    low, high = np.maximum(boxes[:, :2], outer[:, :2]), np.minimum(boxes[:, 2:], outer[:, 2:])
    return np.concatenate([low, np.maximum(high, low)], axis=1)


def overlaps(a: Floats, b: Floats, metric: MergeMetric) -> Floats:
    """Return (K,) intersection over union, or over the smaller box (`ios`)."""
    shared, area_a, area_b = intersections(a, b), areas(a), areas(b)
    whole = area_a + area_b - shared if metric == "iou" else np.minimum(area_a, area_b)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def mutually_best(pairs: Links, tile: Integers) -> Mask:
    """Mark pairs in which each is the other's best match in its tile; of equals the first."""
    a, b, count = pairs.a, pairs.b, len(pairs.a)
    if not count:
        return np.zeros(0, bool)
    box, other = np.concatenate([a, b]), np.concatenate([b, a])
    # Sorted by box, then the tile of the other, then the overlap: the first of each run of
    # (box, tile) is the best match of the box in that tile.
    order = np.lexsort((other, -np.concatenate([pairs.alike] * 2), tile[other], box))
    best = np.zeros(2 * count, bool)
    best[order[first_of_runs(box[order], tile[other][order])]] = True
    return best[:count] & best[count:]


def objects(tile: Integers, links: Links) -> Integers:
    """Number the boxes by object: the connected ones.

    Two boxes of one tile are two objects. Where a chain of matches over several tiles connects
    them, the weaker links of that group are cut.

    Args:
        tile: (N,).
        links: Matches between boxes of different tiles.

    Returns:
        (N,) lowest box of the object of each.
    """
    group = connected(len(tile), links.a, links.b)
    # Two boxes of one tile in one group: cut its weak links, then the less weak ones.
    for bar in STRONGER:
        order = np.lexsort((tile, group))
        again = ~first_of_runs(group[order], tile[order])
        if not again.any():
            break
        conflict = np.isin(group[links.a], group[order[again]])
        links = links.take(~conflict | (links.alike >= bar))
        group = connected(len(tile), links.a, links.b)
    return group


def as_one_tile_saw_them(found: Found, group: Integers, grid: TileGrid) -> Found:
    """Pass each group on as one tile saw it; join the parts of what no tile saw whole (rule 3, 4).

    That tile is the one with most boxes of the group (two boxes of one tile are two objects), then
    the one that the group reaches out of least, then one whose box is clear of its inner edges,
    then the one with the best score, then the one with the widest margin.
    """
    if not len(found):
        return found
    order = np.lexsort((found.index, found.tile, group))
    found, group = found.take(order), group[order]
    starts = np.flatnonzero(first_of_runs(group))
    sizes = np.diff(np.append(starts, len(group)))
    number = np.repeat(np.arange(len(starts)), sizes)  # (N,) groups from 0

    # The hull of a group is what the whole object would be, had one tile seen it.
    low = np.minimum.reduceat(found.boxes[:, :2], starts)
    high = np.maximum.reduceat(found.boxes[:, 2:], starts)
    hull = np.concatenate([low, high], axis=1)
    missed = overhang(hull[number], grid.inner_edges(found.tile))
    runs = np.flatnonzero(first_of_runs(number, found.tile))
    lengths = np.diff(np.append(runs, len(group)))
    of_tile = np.repeat(lengths, lengths)  # (N,) boxes of the same group and tile

    # lexsort takes the most important key last: read them from right to left.
    # Tiles that saw the object clear of their edges saw it equally well: the score decides.
    at_edge = found.clearance <= NEAR
    keys = (found.tile, -found.clearance, -found.scores, at_edge, missed, -of_tile, number)
    ranked = np.lexsort(keys)
    winner = ranked[starts]
    kept = found.tile == found.tile[winner][number]
    # Joined only where the object is larger than the overlap: the winner misses a part of it,
    # and no tile could have shown it whole.
    nobody_saw_it = (missed[winner] > EDGE) & (grid.held(hull, -EDGE) == 0)
    joined = (sizes > 1) & nobody_saw_it & (of_tile[winner] == 1)

    boxes, scores = found.boxes.copy(), found.scores.copy()
    boxes[winner[joined]] = hull[joined]
    scores[winner[joined]] = np.maximum.reduceat(found.scores, starts)[joined]
    return replace(found, boxes=boxes, scores=scores).take(kept)


def greedily(found: Found, links: Links, join: bool) -> Found:
    """Suppress (NMS) or join (NMM) linked boxes, best score first.

    Args:
        found: Boxes.
        links: Pairs that overlap enough.
        join: Give a kept box the hull of what it suppresses.
    """
    a, b = links.a, links.b
    order = np.lexsort((found.index, found.tile, -found.scores))
    # 0 is the best score; of equal ones the first tile, then the first in it.
    priority = np.empty(len(found), np.int64)
    priority[order] = np.arange(len(found))
    better = np.where(priority[a] < priority[b], a, b)
    worse = a + b - better

    keeper = np.full(len(found), -1)  # (N,) who took each box; itself if it is kept
    while (keeper < 0).any():
        # A box is kept once no better one beside it is undecided; then it takes its neighbours.
        undecided = (keeper[better] < 0) & (keeper[worse] < 0)
        waiting = np.zeros(len(found), bool)
        waiting[worse[undecided]] = True
        kept = np.flatnonzero((keeper < 0) & ~waiting)
        keeper[kept] = kept
        taken = (keeper[better] == better) & (keeper[worse] < 0)
        best = np.full(len(found), len(found))
        np.minimum.at(best, worse[taken], priority[better[taken]])
        lost = np.flatnonzero(best < len(found))
        keeper[lost] = order[best[lost]]
    boxes = found.boxes.copy()
    if join:
        np.minimum.at(boxes[:, :2], keeper, found.boxes[:, :2])
        np.maximum.at(boxes[:, 2:], keeper, found.boxes[:, 2:])
    own = keeper == np.arange(len(found))
    return replace(found, boxes=boxes).take(own)
