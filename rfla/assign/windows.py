"""The windowed path of the assigner: each box is scored against the cells round its centre only.

On every level and for every shape of prior, where a score falls with a dx^2 + b dy^2, the k best
cells lie within k/2 cells of the one nearest to the box centre, and the cells that reach a given
score lie within a distance that follows from the side of the priors alone (`Distance.reach`). So
the size of a window is known before any box is seen. `docs/method.md` has the argument, and what
rounding does to it: where a score as good as the k-th (to 1e-4) stands at an edge of the window
beyond which there are more valid cells, the window cannot decide (`OPEN_EDGE`).

Shapes: N boxes of all images, T stages, L levels, S shapes of prior at a point, w window side,
C = w w L S candidates of a box in one stage. The box is the last dimension, so that every operation
runs over long contiguous rows. Where the first dimension is 2 it is the axis: rows, then columns.
Boxes are xyxy in px.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rfla.assign.distance import Distance
from rfla.assign.intervals import Axis, Intervals
from rfla.assign.prior_grid import PriorGrid

TIE_TOLERANCE = 1e-4
"""Relative difference of two scores that rounding could reverse; rounding stays near 1e-5."""
OPEN_EDGE = 2**40
"""Added to the index of a prior at an open edge of its window; larger than any index."""
MAX_WINDOW_SHARE = 0.5
"""Windows are used while they have less than this share of all priors."""
MAX_CENTER = 1e9
"""px. Box centres beyond are moved here before they become integers."""
INVALID_SCORE = -1.0
"""Score of a cell that is not valid; a windowed distance has no negative scores."""


def window_radius(
    grid: PriorGrid, distance: Distance, topk: int, ignore_above: float | None
) -> float:
    """Cells on each side of the nearest one that a window needs to be exact.

    They hold the `topk` best priors and all that score `ignore_above` or more. Infinite where no
    window is exact.
    """
    if distance.reach is None or (ignore_above is not None and ignore_above <= 0):
        return math.inf
    # ceil(topk / 2) is exact; one more cell keeps symmetric ties away from the edge.
    radius = math.ceil(topk / 2) + 1
    # No prior can score more than the range of the distance: then nothing is ignored.
    if ignore_above is None or ignore_above > distance.value_range[1]:
        return radius
    reach_in_cells = max(
        distance.reach(ignore_above, side) / stride
        for side, stride in zip(grid.longest_sides, grid.strides, strict=True)
    )
    if reach_in_cells == math.inf:
        return math.inf
    # The nearest cell is up to half a cell off the box centre; the rest is margin for rounding.
    return max(radius, math.floor(reach_in_cells * 1.001 + 0.501))


def candidates_per_box(grid: PriorGrid, radius: float) -> float:
    """C, the candidates of one box in one stage."""
    return (2 * radius + 1) ** 2 * len(grid.strides) * grid.num_shapes


def windows_are_cheaper(grid: PriorGrid, radius: float) -> bool:
    """Whether windows of this radius cost less than the dense path."""
    return candidates_per_box(grid, radius) < MAX_WINDOW_SHARE * len(grid)


@dataclass(frozen=True, eq=False)
class ValidCells:
    """Cells from `start` up to, but not including, `stop`, for each axis and level.

    Attributes:
        start: (2, L, 1 or S, 1 or N) int64.
        stop: The same.
        whole_grid: Whether every cell of the grid is valid.
    """

    start: Tensor
    stop: Tensor
    whole_grid: bool

    @classmethod
    def of_grid(cls, grid: PriorGrid) -> "ValidCells":
        """Every cell of the grid."""
        return cls(torch.zeros_like(grid.cells.count), grid.cells.count, whole_grid=True)

    @classmethod
    def of_images(
        cls, grid: PriorGrid, sizes: Tensor, allowed_border: float | None
    ) -> "ValidCells":
        """Cells of images, as `PriorGrid.valid` says; the last dimension is the image.

        Args:
            grid: The grid of all images.
            sizes: (B, 2) float32 height and width of each image, px.
            allowed_border: Px by which a prior may cross the border of its image; None: any number.
        """
        extent = sizes.t()[:, None, None]  # (2, 1, 1, B)
        # A cell is valid while its first px lies in the image.
        in_image = (extent / grid.cells.stride).ceil().to(torch.int64)  # (2, L, 1, B)
        stop = torch.minimum(in_image, grid.cells.count)
        if allowed_border is None:
            return cls(torch.zeros_like(stop), stop, whole_grid=False)

        # Edges ascend with the cell, so counting those on one side of the border gives an index.
        before, within = [], []
        for level in range(len(grid.strides)):
            for axis, edges in enumerate(grid.level_edges(level)):
                low, high = edges[..., None]  # (cells, S, 1)
                # Cells before `start` reach over the low border, from `stop` on over the high one.
                too_low = (low < -allowed_border).sum(dim=0)  # (S, 1)
                before.append(too_low.expand(-1, len(sizes)))
                within.append((high < sizes[:, axis] + allowed_border).sum(dim=0))  # (S, B)
        shape = (len(grid.strides), 2, grid.num_shapes, len(sizes))
        start = torch.stack(before).view(shape).transpose(0, 1)  # (2, L, S, B)
        last = torch.stack(within).view(shape).transpose(0, 1)
        return cls(start, torch.minimum(last, stop), whole_grid=False)

    def of_boxes(self, image: Tensor) -> "ValidCells":
        """The valid cells of boxes, from those of images and (N,) the image of each box."""
        if self.whole_grid:
            return self
        return ValidCells(self.start[..., image], self.stop[..., image], whole_grid=False)


class _WindowIntervals(Intervals):
    """The priors of windows along both axes, looked up in the edges of the grids.

    A distance reads only some of the four, so each is gathered when it is asked for.
    """

    def __init__(self, grids: Sequence[PriorGrid], position: Tensor) -> None:
        """`position` (2, T, w, L, S, N) counts through the edges of all grids."""
        self._grids = grids
        self._position = position

    @property
    def low(self) -> Tensor:
        return self._gather([grid.intervals.low for grid in self._grids])

    @property
    def high(self) -> Tensor:
        return self._gather([grid.intervals.high for grid in self._grids])

    @cached_property
    def center(self) -> Tensor:
        return self._gather([grid.intervals.center for grid in self._grids])

    @cached_property
    def side(self) -> Tensor:
        return self._gather([grid.intervals.side for grid in self._grids])

    def _gather(self, tables: Sequence[Tensor]) -> Tensor:
        return torch.cat(tuple(tables)).take(self._position)  # far faster than indexing


@dataclass(frozen=True, eq=False)
class Windows:
    """Scored candidates of N boxes in T stages: the same cells, with fields of other sizes.

    Attributes:
        scores: (T, w, w, L, S, N), rows first; `INVALID_SCORE` where a cell is not valid.
        index: (2, w, L, S, N) int64. The numbers of a row and of a column add up to the index of
            the prior, plus `OPEN_EDGE` where the window ends but the valid cells go on.
        offset: (2, T, w, L, S, N) px between the centres of box and prior along y and x.
    """

    scores: Tensor
    index: Tensor
    offset: Tensor

    @cached_property
    def best_of_column(self) -> Tensor:
        """(T, w, L, S, N) best score of each column of a window."""
        return self.scores.amax(dim=1)

    def squared_distance(self, stage: int) -> Tensor:
        """(C, N) squared distance between the centres of box and prior, px^2."""
        squared = self.offset[:, stage] ** 2
        return (squared[1, None] + squared[0, :, None]).flatten(0, 3)

    def kth_best(self, stage: int, k: int) -> Tensor:
        """(N,) k-th best score of each box in one stage; `INVALID_SCORE` where it has fewer.

        The k best candidates lie in the k columns whose own best are largest, and sorting those
        takes much less time than sorting all candidates.
        """
        # A candidate among the k best makes its column one of the k best columns.
        columns = self.best_of_column[stage].flatten(0, 2)  # (w L S, N)
        if k == 1:
            return columns.amax(dim=0)
        scores = self.scores[stage].flatten(1, 3)  # (w, w L S, N)
        chosen = columns.topk(min(k, len(columns)), dim=0).indices  # (k, N)
        best = scores.gather(1, chosen.expand(len(scores), -1, -1)).flatten(0, 1)  # (w k, N)
        return best.topk(min(k, len(best)), dim=0).values[-1]


def score_windows(
    grids: Sequence[PriorGrid],
    distance: Distance,
    gt_boxes: Tensor,
    radius: int,
    valid: ValidCells,
    memory: Tensor | None = None,
) -> Windows:
    """Score boxes against windows of 2 radius + 1 cells a side, shifted into the valid cells.

    Args:
        grids: The grid of each stage: the same cells, with fields of other sizes.
        distance: How to score.
        gt_boxes: (N, 4).
        radius: Cells on each side of the nearest one.
        valid: The valid cells of these boxes.
        memory: At least T C N float32 for the scores. Fresh pages from the system cost as much as
            the arithmetic on them.
    """
    grid, width = grids[0], 2 * radius + 1
    # Boxes go last, so that each operation below runs over long contiguous rows.
    corners = gt_boxes.reshape(-1, 2, 2).permute(1, 2, 0)  # (low or high, x or y, N)
    gt = Intervals(*corners.flip(1).view(2, 2, 1, 1, 1, 1, -1))  # (2, 1, 1, 1, 1, N), rows first
    # Which cells the windows cover follows from the box centres alone.
    first, last = _first_cells(grid, gt.center[:, 0, 0], radius, valid)
    steps = torch.arange(width, device=first.device).view(-1, 1, 1, 1)
    cells = first[:, None] + steps  # (2, w, L, 1 or S, N)

    # A level smaller than the window has too few cells: look some up twice and mask them below.
    narrowest = min(min(size) for size in grid.feature_sizes)
    all_valid = valid.whole_grid and width <= narrowest
    existing = cells if all_valid else torch.minimum(cells, grid.cells.count[:, None] - 1)

    # A score is made of one term for its row and one for its column: 2 w terms are computed
    # for the w w cells of a window.
    position = existing * grid.num_shapes + grid.cells.edge_start[:, None]  # (2, w, L, S, N)
    axes = Axis(gt, _WindowIntervals(grids, _in_all_grids(position, grids)))
    scores = _score_cells(distance, axes, memory)  # (T, w, w, L, S, N)
    if not all_valid:
        outside = cells >= valid.stop[:, None]
        scores.masked_fill_(outside[0, :, None] | outside[1, None], INVALID_SCORE)

    # Row and column numbers that add up to the index of the prior. An edge beyond which the
    # grid goes on is marked, since a better prior may lie there.
    index = existing * grid.cells.prior_step[:, None] + grid.cells.prior_start[:, None]
    index[:, 0].add_(first > valid.start, alpha=OPEN_EDGE)
    index[:, -1].add_(first < last, alpha=OPEN_EDGE)
    return Windows(scores, index, axes.offset)


def _first_cells(
    grid: PriorGrid, gt_center: Tensor, radius: int, valid: ValidCells
) -> tuple[Tensor, Tensor]:
    """The first cell of each window, and the last cell that it could start at.

    Args:
        grid: The cells.
        gt_center: (2, 1, 1, N) box centres along y and x, px.
        radius: Of the window.
        valid: The valid cells of these boxes.

    Returns:
        (2, L, 1 or S, N) int64 each.
    """
    # NaN and infinity have no cell: any will do, since such a box scores NaN everywhere.
    center = gt_center.clamp(-MAX_CENTER, MAX_CENTER)
    nearest = (center - grid.cells.first_center).div_(grid.cells.stride).round_().nan_to_num_()
    centred = nearest.to(torch.int64).sub_(radius)  # (2, L, 1, N)
    # A window that crosses a border is shifted, not cut; one too wide starts at the first cell.
    last = valid.stop - (2 * radius + 1)
    return torch.maximum(torch.minimum(centred, last), valid.start), last


def _in_all_grids(position: Tensor, grids: Sequence[PriorGrid]) -> Tensor:
    """(2, T, w, L, S, N): positions in the edges of T grids that follow each other."""
    position = position[:, None]  # (2, 1, w, L, S, N)
    if len(grids) == 1:
        return position
    length = grids[0].edges.shape[1]
    # The tables of all stages are concatenated, so one lookup serves them all.
    starts = torch.arange(0, length * len(grids), length, device=position.device)
    return position + starts.view(-1, 1, 1, 1, 1)


def _score_cells(distance: Distance, axes: Axis, memory: Tensor | None) -> Tensor:
    """(T, w, w, L, S, N): the terms of w rows and of w columns combined for w w cells."""
    terms = distance.terms(axes)  # (2, T, w, L, S, N) each
    rows = tuple(term[0][:, :, None] for term in terms)  # (T, w, 1, L, S, N)
    columns = tuple(term[1][:, None] for term in terms)  # (T, 1, w, L, S, N)
    out = None
    if memory is not None:
        _, stages, width, *rest = axes.offset.shape
        shape = (stages, width, width, *rest)
        out = memory[: math.prod(shape)].view(shape)
    return distance.combine(columns, rows, out)
