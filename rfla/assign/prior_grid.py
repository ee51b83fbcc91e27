"""The prior grid: one effective receptive field for every point of every pyramid level.

Shapes: L levels, S shapes (aspect ratios and scales) at a point, P priors of all levels, level by
level, rows, columns, shapes. Boxes are xyxy in px of the network input.

The x1 and x2 of a prior depend on its column and shape alone, its y1 and y2 on its row and shape.
So the grid stores rows and columns apart, H + W entries of a level in place of H W, and the
windowed path reads a window of a level as a few rows and a few columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from rfla.assign.intervals import Intervals

ROWS, COLUMNS = 0, 1


@dataclass(frozen=True, eq=False)
class CellIndex:
    """Numbers that lead from a cell, (axis, level, cell), to its edges and to its priors.

    The first dimension of each tensor is the axis (rows, columns), the second the level.

    Attributes:
        count: (2, L, 1, 1) int64 cells.
        stride: (2, L, 1, 1) int64 px between the centres of cells.
        first_center: (2, L, 1, 1) int64 px, centre of cell 0.
        edge_start: (2, L, S, 1) int64. `edge_start + cell * S` is the column of `PriorGrid.edges`.
        prior_start: (2, L, S, 1) int64. `prior_start + cell * prior_step` of the row and of the
            column add up to the index of the prior.
        prior_step: (2, L, 1, 1) int64.
    """

    count: Tensor
    stride: Tensor
    first_center: Tensor
    edge_start: Tensor
    prior_start: Tensor
    prior_step: Tensor


@dataclass(frozen=True, eq=False)
class PriorGrid:
    """Priors of one network input size; build it with `points` or `anchors`.

    Attributes:
        feature_sizes: (height, width) of each level in cells.
        strides: Px between neighbouring cells of each level.
        shifts: Centre of cell 0 of each level in px.
        num_shapes: S, priors at each point.
        longest_sides: Longest side of the priors of each level in px, on the host.
        edges: (2, E) float32 px: low and high edges of the priors along an axis. First the rows
            (cell, shape) of each level, then the columns (cell, shape) of each level.
    """

    feature_sizes: tuple[tuple[int, int], ...]
    strides: tuple[int, ...]
    shifts: tuple[int, ...]
    num_shapes: int
    longest_sides: tuple[float, ...]
    edges: Tensor = field(repr=False)

    @classmethod
    def points(
        cls,
        feature_sizes: Sequence[tuple[int, int]],
        strides: Sequence[int],
        receptive_fields: Sequence[float],
        fraction: float = 0.5,
        offset: str = "half",
    ) -> "PriorGrid":
        """One square field for each point, as RFLA's FCOS and AutoAssign heads have it.

        Args:
            feature_sizes: (height, width) of each level in cells.
            strides: Px between neighbouring cells of each level.
            receptive_fields: Full side of the theoretical field of each level in px.
            fraction: Share of the theoretical field that is effective.
            offset: `"half"` puts the centres at `x * s + s // 2` (FCOS), `"corner"` at `x * s`
                (AutoAssign).

        Raises:
            ValueError: Another offset, or arguments of different numbers of levels.
        """
        if offset not in ("half", "corner"):
            raise ValueError(f"offset must be 'half' or 'corner', not {offset!r}")
        shifts = [int(stride) // 2 if offset == "half" else 0 for stride in strides]

        def edges(centers: Tensor, level: int, axis: int) -> Tensor:
            half = receptive_fields[level] * fraction / 2
            return torch.stack((centers - half, centers + half))[..., None]  # (2, cells, 1)

        return cls._build(feature_sizes, strides, receptive_fields, shifts, edges)

    @classmethod
    def anchors(
        cls,
        feature_sizes: Sequence[tuple[int, int]],
        strides: Sequence[int],
        receptive_fields: Sequence[float],
        fraction: float = 0.5,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        scales: Sequence[float] = (1.0,),
    ) -> "PriorGrid":
        """Fields of several aspect ratios at each point, centred on `x * s`.

        RFLA's RPN and RetinaNet have these. With the strides as `receptive_fields`, `fraction=1`
        and `scales=[8]` they are the anchors of the baselines.

        Args:
            feature_sizes: (height, width) of each level in cells.
            strides: Px between neighbouring cells of each level.
            receptive_fields: Full side of the theoretical field of each level in px.
            fraction: Share of the theoretical field that is effective.
            ratios: Height / width; every field keeps its area.
            scales: Factors on the side. Shapes run through all scales of the first ratio, then of
                the next.

        Raises:
            ValueError: Arguments of different numbers of levels.
        """
        root = torch.tensor(ratios, dtype=torch.float32).sqrt()
        stretches = (root, 1 / root)  # of heights (rows) and widths (columns)
        factors = torch.tensor(scales, dtype=torch.float32)

        def edges(centers: Tensor, level: int, axis: int) -> Tensor:
            side = receptive_fields[level] * fraction
            sides = (side * stretches[axis])[:, None] * factors  # (ratios, scales)
            half = 0.5 * sides.reshape(-1)  # (S,)
            return torch.stack((-half, half))[:, None] + centers[:, None]  # (2, cells, S)

        return cls._build(feature_sizes, strides, receptive_fields, [0] * len(strides), edges)

    @classmethod
    def _build(
        cls,
        feature_sizes: Sequence[tuple[int, int]],
        strides: Sequence[int],
        receptive_fields: Sequence[float],
        shifts: Sequence[int],
        edges: Callable[[Tensor, int, int], Tensor],
    ) -> "PriorGrid":
        """Join the edges of all levels; `edges(centers, level, axis)` gives (2, cells, S)."""
        if not len(feature_sizes) == len(strides) == len(receptive_fields) > 0:
            raise ValueError(
                "feature_sizes, strides and receptive_fields must name the same levels, got "
                f"{len(feature_sizes)}, {len(strides)} and {len(receptive_fields)}"
            )
        for level, stride in enumerate(strides):
            if stride != int(stride) or stride < 1:
                raise ValueError(
                    f"level {level} has a stride of {stride}; whole px from 1 expected"
                )
        for level, (height, width) in enumerate(feature_sizes):
            if min(height, width) < 1:
                raise ValueError(f"level {level} has {height} x {width} cells; sizes start at 1")
        parts = []
        longest_sides = [0.0] * len(strides)
        for axis in (ROWS, COLUMNS):
            for level, stride in enumerate(strides):
                cells = torch.arange(feature_sizes[level][axis], dtype=torch.float32)
                low, high = part = edges(cells * int(stride) + shifts[level], level, axis)
                parts.append(part)
                longest_sides[level] = max(longest_sides[level], float((high - low).max()))
        return cls(
            feature_sizes=tuple((int(height), int(width)) for height, width in feature_sizes),
            strides=tuple(int(stride) for stride in strides),
            shifts=tuple(shifts),
            num_shapes=parts[0].shape[2],
            longest_sides=tuple(longest_sides),
            edges=torch.cat([part.flatten(1) for part in parts], dim=1),
        )

    @property
    def level_counts(self) -> tuple[int, ...]:
        """Priors of each level."""
        return tuple(height * width * self.num_shapes for height, width in self.feature_sizes)

    @property
    def level_starts(self) -> tuple[int, ...]:
        """Index of the first prior of each level, and P at the end."""
        return tuple(accumulate(self.level_counts, initial=0))

    def __len__(self) -> int:
        """P, the number of priors."""
        return sum(self.level_counts)

    @cached_property
    def intervals(self) -> Intervals:
        """The priors along the axes, (E,) in the order of `edges`."""
        return Intervals(self.edges[0], self.edges[1])

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.edges.device

    @cached_property
    def cells(self) -> CellIndex:
        """Where the edges and the priors of each cell are."""
        shapes = self.num_shapes
        edge_start = 0
        numbers: list[list[list[int]]] = [[], []]  # of each axis, of each level
        for axis in (ROWS, COLUMNS):
            for level, size in enumerate(self.feature_sizes):
                # A row adds the start of its level and whole rows, a column the cells before it.
                prior_start = self.level_starts[level] if axis == ROWS else 0
                prior_step = size[COLUMNS] * shapes if axis == ROWS else shapes
                stride, center = self.strides[level], self.shifts[level]
                numbers[axis].append(
                    [size[axis], stride, center, edge_start, prior_start, prior_step]
                )
                edge_start += size[axis] * shapes
        parts = list(torch.tensor(numbers).permute(2, 0, 1)[..., None, None])  # (2, L, 1, 1) each
        # Shapes follow each other in `edges`; in the index of a prior the column counts them.
        shape = torch.arange(shapes)[:, None]  # (S, 1)
        columns_only = torch.tensor([0, 1]).view(2, 1, 1, 1)
        parts[3] = parts[3] + shape
        parts[4] = parts[4] + shape * columns_only
        return CellIndex(*(part.contiguous().to(self.device, non_blocking=True) for part in parts))

    def level_edges(self, level: int) -> tuple[Tensor, Tensor]:
        """Edges of the priors of a level: rows (2, H, S) of y1, y2, columns (2, W, S) of x1, x2."""
        shapes = self.num_shapes
        axis_starts = [0, sum(height for height, _ in self.feature_sizes) * shapes]
        parts = []
        for axis in (ROWS, COLUMNS):
            cells_before = sum(size[axis] for size in self.feature_sizes[:level])
            start = axis_starts[axis] + cells_before * shapes
            cells = self.feature_sizes[level][axis]
            part = self.edges[:, start : start + cells * shapes]
            parts.append(part.reshape(2, cells, shapes))
        return parts[ROWS], parts[COLUMNS]

    @cached_property
    def boxes(self) -> Tensor:
        """(P, 4) float32 xyxy px."""
        parts = []
        for level, (height, width) in enumerate(self.feature_sizes):
            rows, columns = self.level_edges(level)
            x = columns[:, None].expand(-1, height, -1, -1)  # (2, H, W, S)
            y = rows[:, :, None].expand(-1, -1, width, -1)
            parts.append(torch.stack((x[0], y[0], x[1], y[1]), dim=-1).reshape(-1, 4))
        return torch.cat(parts)

    @cached_property
    def centers(self) -> Tensor:
        """(P, 2) float32 x, y in px: where the points are, free of the rounding of the edges."""
        parts = []
        for size, stride, shift in zip(self.feature_sizes, self.strides, self.shifts, strict=True):
            y, x = (torch.arange(count, device=self.device) * stride + shift for count in size)
            points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (H, W, 2)
            priors = points[:, :, None].expand(-1, -1, self.num_shapes, -1)  # (H, W, S, 2)
            parts.append(priors.reshape(-1, 2).to(torch.float32))
        return torch.cat(parts)

    @cached_property
    def level_index(self) -> Tensor:
        """(P,) int64: the level of each prior, counted from 0."""
        parts = [
            torch.full((count,), level, device=self.device)
            for level, count in enumerate(self.level_counts)
        ]
        return torch.cat(parts)

    @cached_property
    def shape_group(self) -> Tensor:
        """(P,) int64: one number for each level and shape, `level * S + shape`."""
        shape = torch.arange(len(self), device=self.device) % self.num_shapes
        return self.level_index * self.num_shapes + shape

    def scaled(self, factor: float) -> "PriorGrid":
        """The same grid with every field `factor` times as wide and as high about its centre.

        Each scale is computed once and kept.
        """
        if factor not in self._scaled:
            sides = tuple(side * factor for side in self.longest_sides)
            grid = replace(self, edges=scale_edges(self.edges, factor), longest_sides=sides)
            # What does not depend on the scale need not be computed again.
            for name in ("cells", "centers", "level_index", "shape_group"):
                if name in self.__dict__:
                    grid.__dict__[name] = self.__dict__[name]
            self._scaled[factor] = grid
        return self._scaled[factor]

    @cached_property
    def _scaled(self) -> "dict[float, PriorGrid]":
        return {}

    def to(self, device: torch.device | str) -> "PriorGrid":
        """The same grid on another device."""
        # a copy to the host would be read before it has arrived
        to_host = torch.device(device).type == "cpu"
        edges = self.edges.to(device, non_blocking=not to_host)
        return self if edges is self.edges else replace(self, edges=edges)

    def valid(
        self, image_size: tuple[int, int] | None, allowed_border: float | None = None
    ) -> Tensor:
        """(P,) bool: which priors an image of this size (height, width) has.

        A cell counts when it lies within the image rounded up to whole cells. With
        `allowed_border`, a field must also stay within the image widened by that many px on each
        side.

        Raises:
            ValueError: `allowed_border` without `image_size`.
        """
        if image_size is None:
            if allowed_border is not None:
                raise ValueError("allowed_border needs image_size")
            return torch.ones(len(self), dtype=torch.bool, device=self.device)
        parts = []
        for level, stride in enumerate(self.strides):
            flags = []
            for (low, high), extent in zip(self.level_edges(level), image_size, strict=True):
                cell = torch.arange(len(low), device=self.device)[:, None]  # (cells, 1)
                inside = cell * stride < extent
                if allowed_border is not None:
                    # (cells, S)
                    inside = inside & (low >= -allowed_border) & (high < extent + allowed_border)
                flags.append(inside.expand(low.shape))
            valid = flags[ROWS][:, None] & flags[COLUMNS][None]  # (H, W, S)
            parts.append(valid.reshape(-1))
        return torch.cat(parts)


def scale_edges(edges: Tensor, factor: float) -> Tensor:
    """Scale intervals (2, ...) about their centres, in the authors' order of float operations."""
    low, high = edges
    center = (high + low) / 2
    half = (high - low) * factor / 2
    return torch.stack((center - half, center + half))
