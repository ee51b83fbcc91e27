"""The windowed path of the assigner: a box meets only the cells round its centre, on every level and for every shape.

Where a score falls with a dx^2 + b dy^2, the k best cells of a level lie within k/2 cells of the nearest one, and the
cells that reach a given score lie within a distance that follows from the side of the priors alone (`Distance.reach`).
So the size of the window is known before any box is seen. `docs/method.md` has the argument, its one gap, rounding, and
how the gap is closed: a box with a score as good as its k-th (to 1e-4) at an open edge of its window is not decided
here.

Shapes: N boxes of all images, L levels, S shapes at a point, w window side, C = w w L S candidates of a box. The box is
the last dimension: every operation then runs over long contiguous rows. px, xyxy.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rfla.assign.distance import Axis, Distance
from rfla.assign.priors import COLUMNS, ROWS, PriorGrid

NEAR_TIE = 1e-4
"""Relative difference of scores that rounding could turn round; rounding itself stays near 1e-5."""
FAR = 1e9
"""px; centres beyond it are as good as this far away."""


def window_radius(grid: PriorGrid, distance: Distance, k: int, ignore_above: float | None) -> float:
    """Cells on each side of the nearest one that decide the k best priors and all that reach `ignore_above`.

    Infinite where no window is exact.
    """
    if distance.reach is None or (ignore_above is not None and ignore_above <= 0):
        return math.inf
    radius = math.ceil(k / 2) + 1  # ceil(k / 2) is exact; one more keeps symmetric ties off the edge
    if ignore_above is None or ignore_above > distance.value_range[1]:
        return radius
    cells = [
        distance.reach(ignore_above, side) / stride
        for side, stride in zip(grid.longest_sides, grid.strides, strict=True)
    ]
    return max(radius, math.floor(max(cells) * 1.001 + 0.501)) if max(cells) < math.inf else math.inf


def window_cells(grid: PriorGrid, radius: float) -> float:
    """C: candidates of one box."""
    return (2 * radius + 1) ** 2 * len(grid.strides) * grid.num_shapes


@dataclass(frozen=True, eq=False)
class Limits:
    """Valid cells [low, high) of each level, shape and box along both axes: (L, 1 or S, 1 or N) int64."""

    low: tuple[Tensor, Tensor]
    high: tuple[Tensor, Tensor]
    restricted: bool

    @classmethod
    def of_grid(cls, grid: PriorGrid) -> "Limits":
        """Every cell of the grid."""
        high = tuple(layout.count for layout in grid.layouts)
        return cls((torch.zeros_like(high[0]), torch.zeros_like(high[1])), (high[0], high[1]), restricted=False)

    @classmethod
    def of_images(cls, grid: PriorGrid, sizes: Tensor, allowed_border: float | None) -> "Limits":
        """Cells that images of `sizes` (B, 2) float32 (height, width) have; see `PriorGrid.valid`. Last dimension B."""
        lows, highs = [], []
        for axis in (ROWS, COLUMNS):
            extent, layout = sizes[:, axis], grid.layouts[axis]
            high = torch.minimum((extent / layout.stride).ceil().to(torch.int64), layout.count)  # (L, 1, B)
            low = torch.zeros_like(high)
            if allowed_border is not None:
                before, within = [], []
                for level in range(len(grid.strides)):
                    ends = grid.ends(level)[axis][..., None]  # (2, cells, S, 1)
                    before.append((ends[0] < -allowed_border).sum(dim=0).expand(-1, len(extent)))
                    within.append((ends[1] < extent + allowed_border).sum(dim=0))  # (S, B)
                low, high = torch.stack(before), torch.minimum(torch.stack(within), high)  # (L, S, B)
            lows.append(low)
            highs.append(high)
        return cls((lows[ROWS], lows[COLUMNS]), (highs[ROWS], highs[COLUMNS]), restricted=True)

    def take(self, image: Tensor) -> "Limits":
        """The limits of boxes, from those of images and the (N,) index of each box's image."""
        if not self.restricted:
            return self
        low, high = ([bound[..., image] for bound in bounds] for bounds in (self.low, self.high))
        return Limits((low[0], low[1]), (high[0], high[1]), restricted=True)


@dataclass(frozen=True, eq=False)
class Span:
    """Windows along one axis, (w, L, S, N) unless said otherwise.

    Attributes:
        low: Low end of the priors in px.
        high: High end of the priors in px.
        index: What the cell adds to the index of the prior.
        outside: The cell is not valid; None where all are.
        open_ends: (2, L, S, N) bool: valid cells go on before the window, behind it.
    """

    low: Tensor
    high: Tensor
    index: Tensor
    outside: Tensor | None
    open_ends: Tensor


def place(grid: PriorGrid, axis: int, centre: Tensor, radius: int, limits: Limits) -> Span:
    """Put windows of 2 radius + 1 cells round the (N,) centres in px, shifted into the valid cells."""
    layout, width = grid.layouts[axis], 2 * radius + 1
    low, high = limits.low[axis], limits.high[axis]
    nearest = ((centre.clamp(-FAR, FAR) - layout.shift) / layout.stride).round_().nan_to_num_().to(torch.int64)
    first = torch.maximum(torch.minimum(nearest - radius, high - width), low)  # (L, 1 or S, N)
    offsets = torch.arange(width, device=centre.device)[:, None, None, None]
    cells = first + offsets  # (w, L, 1 or S, N)
    shape = torch.arange(grid.num_shapes, device=centre.device)[:, None]
    inside = torch.minimum(cells, layout.count - 1)
    slots = layout.start + inside * grid.num_shapes + shape  # (w, L, S, N)
    low_end, high_end = grid.table[0].take(slots), grid.table[1].take(slots)  # far faster than indexing
    index = layout.base + inside * layout.step + (shape if axis == COLUMNS else torch.zeros_like(shape))
    fits = not limits.restricted and all(width <= size[axis] for size in grid.feature_sizes)
    outside = None if fits else (cells >= high).expand_as(low_end)
    open_ends = torch.stack(((first > low).expand_as(low_end[0]), (first + width < high).expand_as(low_end[0])))
    return Span(low_end, high_end, index, outside, open_ends)


@dataclass(frozen=True, eq=False)
class Windows:
    """The scored candidates of N boxes.

    Attributes:
        rows: Windows along y.
        columns: Windows along x.
        scores: (w, w, L, S, N), rows first; -1 where a cell is not valid (a windowed score is never negative).
        gt_boxes: (N, 4) float32.
    """

    rows: Span
    columns: Span
    scores: Tensor
    gt_boxes: Tensor

    def kth(self, k: int) -> Tensor:
        """(N,) k-th best score of each box; -1 where it has fewer candidates."""
        candidates = self.scores.flatten(0, 3)  # (C, N)
        return candidates.topk(k, dim=0).values[-1] if k > 1 else candidates.amax(dim=0)

    def axes(self) -> tuple[Axis, Axis]:
        """The x and the y axis, to be broadcast to (w, w, L, S, N)."""
        return _axis(self.gt_boxes, self.columns, COLUMNS), _axis(self.gt_boxes, self.rows, ROWS)


def _axis(gt_boxes: Tensor, span: Span, axis: int) -> Axis:
    at = 0 if axis == COLUMNS else 1  # x is coordinate 0 and varies along window dimension 1, y the other way round
    return Axis(gt_boxes[:, at], gt_boxes[:, at + 2], span.low.unsqueeze(at), span.high.unsqueeze(at))


def score_windows(grid: PriorGrid, distance: Distance, gt_boxes: Tensor, radius: int, limits: Limits) -> Windows:
    """Score (N, 4) boxes against the cells of their windows."""
    centre = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
    rows = place(grid, ROWS, centre[:, 1], radius, limits)
    columns = place(grid, COLUMNS, centre[:, 0], radius, limits)
    scores = distance.score(_axis(gt_boxes, columns, COLUMNS), _axis(gt_boxes, rows, ROWS))
    for outside, at in ((rows.outside, 1), (columns.outside, 0)):
        if outside is not None:
            scores.masked_fill_(outside.unsqueeze(at), -1.0)
    return Windows(rows, columns, scores, gt_boxes)
