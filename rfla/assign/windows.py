"""The windowed path of the assigner: a box meets only the cells round its centre, on every level and for every shape.

Where a score falls with a dx^2 + b dy^2, the k best cells of a level lie within k/2 cells of the
nearest one, and the cells that reach a given score lie within a distance that follows from the side
of the priors alone (`Distance.reach`). So the size of the window is known before any box is seen.
`docs/method.md` has the argument, its one gap, rounding, and how the gap is closed: a box with a
score as good as its k-th (to 1e-4) at an open edge of its window is not decided here.

Shapes: N boxes of all images, T stages, L levels, S shapes at a point, w window side, C = w w L S
candidates of a box in one stage. The box is the last dimension: every operation then runs over long
contiguous rows. px, xyxy.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rfla.assign.distance import Axis, Distance, Intervals
from rfla.assign.priors import PriorGrid

NEAR_TIE = 1e-4
"""Relative difference of scores that rounding could turn round; rounding itself stays near 1e-5."""
RIM = 2**40
"""Flag within an index: larger than any index of a prior."""
FAR = 1e9
"""px; centres beyond it are as good as this far away."""


def window_radius(grid: PriorGrid, distance: Distance, k: int, ignore_above: float | None) -> float:
    """Cells on each side of the nearest one that decide the k best priors and all that reach `ignore_above`.

    Infinite where no window is exact.
    """
    if distance.reach is None or (ignore_above is not None and ignore_above <= 0):
        return math.inf
    radius = (
        math.ceil(k / 2) + 1
    )  # ceil(k / 2) is exact; one more keeps symmetric ties off the edge
    if ignore_above is None or ignore_above > distance.value_range[1]:
        return radius
    cells = [
        distance.reach(ignore_above, side) / stride
        for side, stride in zip(grid.longest_sides, grid.strides, strict=True)
    ]
    return (
        max(radius, math.floor(max(cells) * 1.001 + 0.501)) if max(cells) < math.inf else math.inf
    )


def window_cells(grid: PriorGrid, radius: float) -> float:
    """C: candidates of one box."""
    return (2 * radius + 1) ** 2 * len(grid.strides) * grid.num_shapes


@dataclass(frozen=True, eq=False)
class Limits:
    """Valid cells [low, high) of both axes (rows, columns): (2, L, 1 or S, 1 or N) int64.

    `restricted` is False where every cell of the grid is valid.
    """

    low: Tensor
    high: Tensor
    restricted: bool

    @classmethod
    def of_grid(cls, grid: PriorGrid) -> "Limits":
        """Every cell of the grid."""
        return cls(torch.zeros_like(grid.layout.count), grid.layout.count, restricted=False)

    @classmethod
    def of_images(cls, grid: PriorGrid, sizes: Tensor, allowed_border: float | None) -> "Limits":
        """Cells that images of `sizes` (B, 2) float32 (height, width) have.

        See `PriorGrid.valid`. Last dimension B.
        """
        extent, layout = sizes.t()[:, None, None], grid.layout  # (2, 1, 1, B)
        high = torch.minimum(
            (extent / layout.stride).ceil().to(torch.int64), layout.count
        )  # (2, L, 1, B)
        if allowed_border is None:
            return cls(torch.zeros_like(high), high, restricted=True)
        before, within = [], []
        for level in range(len(grid.strides)):
            for axis, ends in enumerate(grid.ends(level)):  # (2, cells, S)
                low_end, high_end = ends[..., None]  # (cells, S, 1)
                before.append((low_end < -allowed_border).sum(dim=0).expand(-1, len(sizes)))
                within.append((high_end < sizes[:, axis] + allowed_border).sum(dim=0))  # (S, B)
        shape = (len(grid.strides), 2, grid.num_shapes, len(sizes))
        low, last = (torch.stack(parts).view(shape).transpose(0, 1) for parts in (before, within))
        return cls(low, torch.minimum(last, high), restricted=True)

    def take(self, image: Tensor) -> "Limits":
        """The limits of boxes, from those of images and the (N,) index of each box's image."""
        return (
            Limits(self.low[..., image], self.high[..., image], restricted=True)
            if self.restricted
            else self
        )


class Picked(Intervals):
    """The intervals of some tables at some slots, counted through all tables.

    Looked up when they are asked for.
    """

    def __init__(self, tables: Sequence[Intervals], slots: Tensor) -> None:
        self._tables, self._slots = tables, slots

    @property
    def low(self) -> Tensor:
        """Where they begin."""
        return self._pick([table.low for table in self._tables])

    @property
    def high(self) -> Tensor:
        """Where they end."""
        return self._pick([table.high for table in self._tables])

    @cached_property
    def center(self) -> Tensor:
        """Their middle."""
        return self._pick([table.center for table in self._tables])

    @cached_property
    def side(self) -> Tensor:
        """Their length plus 1e-6 px."""
        return self._pick([table.side for table in self._tables])

    def _pick(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(tuple(parts)).take(self._slots)  # far faster than indexing


@dataclass(frozen=True, eq=False)
class Windows:
    """The scored candidates of N boxes in T stages: the same cells, fields of another size.

    Attributes:
        scores: (T, w, w, L, S, N), rows first; -1 where a cell is not valid (a windowed score is
            never negative).
        index: (2, w, L, S, N) int64: what row and column add to the index of the prior
            (`AxisLayout`), and `RIM` where the window ends but the valid cells go on.
        offset: (2, T, w, L, S, N) px between the centres of box and prior along y and x.
    """

    scores: Tensor
    index: Tensor
    offset: Tensor

    @cached_property
    def best_of_column(self) -> Tensor:
        """(T, w, L, S, N) best score of each column of a window."""
        return self.scores.amax(dim=1)

    def kth(self, stage: int, k: int) -> Tensor:
        """(N,) k-th best score of each box in one stage; -1 where it has fewer candidates.

        The k best candidates are in the k columns whose best are largest: sorting all of them would
        take longer.
        """
        columns, scores = (
            self.best_of_column[stage].flatten(0, 2),
            self.scores[stage].flatten(1, 3),
        )  # (w L S, N)
        if k == 1:
            return columns.amax(dim=0)
        chosen = columns.topk(min(k, len(columns)), dim=0).indices
        best = scores.gather(1, chosen.expand(len(scores), -1, -1)).flatten(0, 1)  # (w k, N)
        return best.topk(min(k, len(best)), dim=0).values[-1]


def score_windows(
    fields: Sequence[PriorGrid],
    distance: Distance,
    gt_boxes: Tensor,
    radius: int,
    limits: Limits,
    memory: Tensor | None = None,
) -> Windows:
    """Score boxes against windows of 2 radius + 1 cells a side, shifted into the valid cells.

    Args:
        fields: The grid of each stage: the same cells, fields of another size.
        distance: How to score.
        gt_boxes: (N, 4).
        radius: Cells on each side of the nearest one.
        limits: The valid cells.
        memory: At least T C N float32 for the scores: fresh pages cost as much as the arithmetic on
            them.
    """
    grid, layout, width = fields[0], fields[0].layout, 2 * radius + 1
    gt = Intervals(
        *gt_boxes.reshape(-1, 2, 2).permute(1, 2, 0).flip(1).view(2, 2, 1, 1, 1, 1, -1)
    )  # rows first
    nearest = (gt.center[:, 0, 0].clamp(-FAR, FAR) - layout.shift).div_(layout.stride).round_()
    first = nearest.nan_to_num_().to(torch.int64).sub_(radius)  # (2, L, 1, N)
    last = limits.high - width
    first = torch.maximum(torch.minimum(first, last), limits.low)  # (2, L, 1 or S, N)
    cells = first[:, None] + torch.arange(width, device=first.device).view(
        -1, 1, 1, 1
    )  # (2, w, L, 1 or S, N)
    fits = not limits.restricted and all(
        width <= count for size in grid.feature_sizes for count in size
    )
    inside = cells if fits else torch.minimum(cells, layout.count[:, None] - 1)
    slots = (inside * grid.num_shapes + layout.start[:, None])[:, None]  # (2, 1, w, L, S, N)
    if len(fields) > 1:
        table = grid.table.shape[1]
        starts = torch.arange(0, table * len(fields), table, device=first.device)
        slots = slots + starts.view(-1, 1, 1, 1, 1)  # (2, T, w, L, S, N)
    axes = Axis(gt, Picked([one.intervals for one in fields], slots))
    y, x = zip(*distance.terms(axes), strict=True)
    shape = (len(fields), width, *slots.shape[2:])  # (T, w, w, L, S, N)
    out = None if memory is None else memory[: math.prod(shape)].view(shape)
    scores = distance.combine(
        tuple(term[:, None] for term in x), tuple(term[:, :, None] for term in y), out
    )
    if not fits:
        outside = cells >= limits.high[:, None]
        scores.masked_fill_(outside[0, :, None] | outside[1, None], -1.0)
    index = inside * layout.step[:, None] + layout.base[:, None]
    index[:, 0].add_(first > limits.low, alpha=RIM)
    index[:, -1].add_(first < last, alpha=RIM)
    return Windows(scores, index, axes.offset)
