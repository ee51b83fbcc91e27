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
        """Cells that images of `sizes` (B, 2) float32 (height, width) have; see `PriorGrid.valid`. Last dimension B."""
        extent, layout = sizes.t()[:, None, None], grid.layout  # (2, 1, 1, B)
        high = torch.minimum((extent / layout.stride).ceil().to(torch.int64), layout.count)  # (2, L, 1, B)
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
        return Limits(self.low[..., image], self.high[..., image], restricted=True) if self.restricted else self


@dataclass(frozen=True, eq=False)
class Windows:
    """The scored candidates of N boxes.

    Attributes:
        scores: (w, w, L, S, N), rows first; -1 where a cell is not valid (a windowed score is never negative).
        index: (2, w, L, S, N) int64: what row and column add to the index of the prior (`AxisLayout`), and `RIM` where
            the window ends but the valid cells go on.
        offset: (2, w, L, S, N) px between the centres of box and prior along y and x.
    """

    scores: Tensor
    index: Tensor
    offset: Tensor

    @property
    def candidates(self) -> Tensor:
        """(C, N) scores."""
        return self.scores.flatten(0, 3)

    def kth(self, k: int) -> Tensor:
        """(N,) k-th best score of each box; -1 where it has fewer candidates."""
        return self.candidates.topk(k, dim=0).values[-1] if k > 1 else self.candidates.amax(dim=0)


def score_windows(
    grid: PriorGrid, distance: Distance, gt_boxes: Tensor, radius: int, limits: Limits, memory: Tensor | None = None
) -> Windows:
    """Score (N, 4) boxes against windows of 2 radius + 1 cells a side, shifted into the valid cells.

    `memory`, at least C N float32, takes the scores: fresh pages cost as much as the arithmetic on them.
    """
    layout, width = grid.layout, 2 * radius + 1
    x1, y1, x2, y2 = gt_boxes.unbind(1)
    low, high = (torch.stack(ends).view(2, 1, 1, 1, -1) for ends in ((y1, x1), (y2, x2)))  # rows first
    nearest = (((low[:, 0] + high[:, 0]) / 2).clamp_(-FAR, FAR) - layout.shift).div_(layout.stride).round_()
    first = nearest.nan_to_num_().to(torch.int64).sub_(radius)  # (2, L, 1, N)
    first = torch.maximum(torch.minimum(first, limits.high - width), limits.low)  # (2, L, 1 or S, N)
    cells = first[:, None] + torch.arange(width, device=first.device).view(-1, 1, 1, 1)  # (2, w, L, 1 or S, N)
    fits = not limits.restricted and all(width <= count for size in grid.feature_sizes for count in size)
    inside = cells if fits else torch.minimum(cells, layout.count[:, None] - 1)
    slots = inside * grid.num_shapes + layout.start[:, None]  # (2, w, L, S, N)
    axes = Axis(low, high, grid.table[0].take(slots), grid.table[1].take(slots))  # far faster than indexing
    y, x = zip(*distance.terms(axes), strict=True)
    shape = (width, *slots.shape[1:])  # (w, w, L, S, N)
    out = None if memory is None else memory[: math.prod(shape)].view(shape)
    scores = distance.combine(tuple(term[None] for term in x), tuple(term[:, None] for term in y), out)
    if not fits:
        outside = cells >= limits.high[:, None]
        scores.masked_fill_(outside[0, :, None] | outside[1, None], -1.0)
    index = inside * layout.step[:, None] + layout.base[:, None]
    index[:, 0] += (first > limits.low) * RIM
    index[:, -1] += (first + width < limits.high) * RIM
    return Windows(scores, index, axes.offset)
