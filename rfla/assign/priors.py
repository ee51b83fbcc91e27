"""The prior grid: one effective receptive field for every point of every pyramid level (and every shape of it).

Shapes: L levels, S shapes (ratios) at a point, P priors of all levels, level by level, rows,
columns, ratios. Boxes are xyxy in px of the network input. The grid stores rows and columns apart,
since x1 and x2 of a prior depend on its column and shape alone, y1 and y2 on its row and shape;
that is what the windowed assigner reads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from rfla.assign.distance import Intervals

ROWS, COLUMNS = 0, 1


@dataclass(frozen=True, eq=False)
class AxisLayout:
    """Where the cells of rows and columns are in `PriorGrid.table`, and what they add to the index of a prior.

    All have a first dimension of 2 (rows, columns) and a second of L. `start + cell * S` is the
    slot in the table; `base + cell * step` of the row and of the column add up to the index of the
    prior.

    Attributes:
        start: (2, L, S, 1)
        base: (2, L, S, 1)
        step: (2, L, 1, 1)
        count: (2, L, 1, 1) cells.
        stride: (2, L, 1, 1) px between cells.
        shift: (2, L, 1, 1) px, centre of cell 0.
    """

    start: Tensor
    base: Tensor
    step: Tensor
    count: Tensor
    stride: Tensor
    shift: Tensor


@dataclass(frozen=True, eq=False)
class PriorGrid:
    """Priors of one network input size; build it with `points` or `anchors`.

    Attributes:
        feature_sizes: (height, width) of each level in cells.
        strides: Px between neighbouring cells of each level.
        shifts: Centre of cell 0 of each level in px.
        num_shapes: S, priors at each point.
        longest_sides: Longest side of the priors of each level in px, on the host.
        table: (2, T) float32 px: low and high ends of the priors along an axis. First the rows
            (cell, shape) of each level, then the columns (cell, shape) of each level.
    """

    feature_sizes: tuple[tuple[int, int], ...]
    strides: tuple[int, ...]
    shifts: tuple[int, ...]
    num_shapes: int
    longest_sides: tuple[float, ...]
    table: Tensor

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
        """
        if offset not in ("half", "corner"):
            raise ValueError(f"offset must be 'half' or 'corner', not {offset!r}")
        shifts = [int(stride) // 2 if offset == "half" else 0 for stride in strides]

        def ends(centres: Tensor, level: int, axis: int) -> Tensor:
            half = receptive_fields[level] * fraction / 2
            return torch.stack((centres - half, centres + half))[..., None]  # (2, cells, 1)

        return cls._build(feature_sizes, strides, receptive_fields, shifts, ends)

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
        """Fields of several aspect ratios at each point, centred on `x * s`, as RFLA's RPN and RetinaNet have it.

        With the strides as `receptive_fields`, `fraction=1` and `scales=[8]` these are the anchors
        of the baselines.

        Args:
            feature_sizes: (height, width) of each level in cells.
            strides: Px between neighbouring cells of each level.
            receptive_fields: Full side of the theoretical field of each level in px.
            fraction: Share of the theoretical field that is effective.
            ratios: Height / width; every field keeps its area.
            scales: Factors on the side. Shapes run through all scales of the first ratio, then of
                the next.
        """
        root = torch.tensor(ratios, dtype=torch.float32).sqrt()
        stretches = (root, 1 / root)  # of rows and columns
        factors = torch.tensor(scales, dtype=torch.float32)

        def ends(centres: Tensor, level: int, axis: int) -> Tensor:
            side = receptive_fields[level] * fraction
            half = 0.5 * ((side * stretches[axis])[:, None] * factors).reshape(-1)  # (S,)
            return torch.stack((-half, half))[:, None] + centres[:, None]  # (2, cells, S)

        return cls._build(feature_sizes, strides, receptive_fields, [0] * len(strides), ends)

    @classmethod
    def _build(
        cls,
        feature_sizes: Sequence[tuple[int, int]],
        strides: Sequence[int],
        receptive_fields: Sequence[float],
        shifts: Sequence[int],
        ends: Callable[[Tensor, int, int], Tensor],
    ) -> "PriorGrid":
        """Lay the table out; `ends(centres, level, axis)` gives the (2, cells, S) ends of the priors of one level."""
        if not len(feature_sizes) == len(strides) == len(receptive_fields) > 0:
            raise ValueError(
                "feature_sizes, strides and receptive_fields must name the same levels, got "
                f"{len(feature_sizes)}, {len(strides)} and {len(receptive_fields)}"
            )
        parts, sides = [], [0.0] * len(strides)
        for axis in (ROWS, COLUMNS):
            for level, stride in enumerate(strides):
                centres = (
                    torch.arange(feature_sizes[level][axis], dtype=torch.float32) * int(stride)
                    + shifts[level]
                )
                parts.append(ends(centres, level, axis))
                sides[level] = max(sides[level], float((parts[-1][1] - parts[-1][0]).max()))
        return cls(
            feature_sizes=tuple((int(height), int(width)) for height, width in feature_sizes),
            strides=tuple(int(stride) for stride in strides),
            shifts=tuple(shifts),
            num_shapes=parts[0].shape[2],
            longest_sides=tuple(sides),
            table=torch.cat([part.flatten(1) for part in parts], dim=1),
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
        """The priors along the axes, (T,) in the order of `table`."""
        return Intervals(self.table[0], self.table[1])

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.table.device

    @cached_property
    def layout(self) -> AxisLayout:
        """See `AxisLayout`."""
        shapes, slots = self.num_shapes, 0
        rows: list[list[list[int]]] = [[], []]
        for axis in (ROWS, COLUMNS):
            for level, size in enumerate(self.feature_sizes):
                base = self.level_starts[level] if axis == ROWS else 0
                step = size[COLUMNS] * shapes if axis == ROWS else shapes
                rows[axis].append(
                    [slots, base, step, size[axis], self.strides[level], self.shifts[level]]
                )
                slots += size[axis] * shapes
        fields = torch.tensor(rows).permute(2, 0, 1)[..., None, None]  # (6, 2, L, 1, 1)
        shape = torch.arange(shapes)[:, None]
        columns_only = torch.tensor([0, 1]).view(2, 1, 1, 1)
        parts = (fields[0] + shape, fields[1] + shape * columns_only, *fields[2:])
        return AxisLayout(*(part.contiguous().to(self.device, non_blocking=True) for part in parts))

    def ends(self, level: int) -> tuple[Tensor, Tensor]:
        """Ends of the priors of one level: rows (2, H, S) hold y1 and y2, columns (2, W, S) hold x1 and x2."""
        starts = [0, sum(height for height, _ in self.feature_sizes) * self.num_shapes]
        parts = []
        for axis in (ROWS, COLUMNS):
            start = (
                starts[axis]
                + sum(size[axis] for size in self.feature_sizes[:level]) * self.num_shapes
            )
            cells = self.feature_sizes[level][axis]
            part = self.table[:, start : start + cells * self.num_shapes]
            parts.append(part.reshape(2, cells, self.num_shapes))
        return parts[ROWS], parts[COLUMNS]

    @cached_property
    def boxes(self) -> Tensor:
        """(P, 4) float32 xyxy px."""
        parts = []
        for level, (height, width) in enumerate(self.feature_sizes):
            rows, columns = self.ends(level)
            x = columns[:, None].expand(-1, height, -1, -1)  # (2, H, W, S)
            y = rows[:, :, None].expand(-1, -1, width, -1)
            parts.append(torch.stack((x[0], y[0], x[1], y[1]), dim=-1).reshape(-1, 4))
        return torch.cat(parts)

    @cached_property
    def centers(self) -> Tensor:
        """(P, 2) float32 x, y in px: where the points are, free of the rounding of the corners."""
        parts = []
        for size, stride, shift in zip(self.feature_sizes, self.strides, self.shifts, strict=True):
            y, x = (torch.arange(count, device=self.device) * stride + shift for count in size)
            cells = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[
                :, :, None
            ]  # (H, W, 1, 2)
            parts.append(cells.expand(-1, -1, self.num_shapes, -1).reshape(-1, 2).to(torch.float32))
        return torch.cat(parts)

    @cached_property
    def level_index(self) -> Tensor:
        """(P,) int64: the level of each prior, counted from 0."""
        return torch.cat(
            [
                torch.full((count,), level, device=self.device)
                for level, count in enumerate(self.level_counts)
            ]
        )

    @cached_property
    def shape_group(self) -> Tensor:
        """(P,) int64: one number for each level and shape, `level * S + shape`."""
        return (
            self.level_index * self.num_shapes
            + torch.arange(len(self), device=self.device) % self.num_shapes
        )

    def scaled(self, factor: float) -> "PriorGrid":
        """The same grid with every field `factor` times as wide and as high about its centre.

        Made once, then kept.
        """
        if factor not in self._scaled:
            sides = tuple(side * factor for side in self.longest_sides)
            grid = replace(self, table=scale_ends(self.table, factor), longest_sides=sides)
            for shared in (
                "layout",
                "centers",
                "level_index",
                "shape_group",
            ):  # do not depend on the scale
                if shared in self.__dict__:
                    grid.__dict__[shared] = self.__dict__[shared]
            self._scaled[factor] = grid
        return self._scaled[factor]

    @cached_property
    def _scaled(self) -> "dict[float, PriorGrid]":
        return {}

    def to(self, device: torch.device | str) -> "PriorGrid":
        """The same grid on another device."""
        table = self.table.to(device, non_blocking=True)
        return self if table is self.table else replace(self, table=table)

    def valid(
        self, image_size: tuple[int, int] | None, allowed_border: float | None = None
    ) -> Tensor:
        """(P,) bool: which priors an image of this size (height, width) has.

        A cell counts when it lies within the image rounded up to whole cells. With
        `allowed_border`, a field must also stay within the image widened by that many px on each
        side.
        """
        if image_size is None:
            if allowed_border is not None:
                raise ValueError("allowed_border needs image_size")
            return torch.ones(len(self), dtype=torch.bool, device=self.device)
        parts = []
        for level, stride in enumerate(self.strides):
            flags = []
            for axis, extent in zip(self.ends(level), image_size, strict=True):
                inside = (
                    torch.arange(axis.shape[1], device=self.device)[:, None] * stride < extent
                )  # (cells, 1)
                if allowed_border is not None:
                    inside = (
                        inside & (axis[0] >= -allowed_border) & (axis[1] < extent + allowed_border)
                    )
                flags.append(inside.expand(axis.shape[1:]))
            parts.append((flags[ROWS][:, None] & flags[COLUMNS][None]).reshape(-1))
        return torch.cat(parts)


def scale_ends(ends: Tensor, factor: float) -> Tensor:
    """Scale intervals (2, ...) about their centres, in the float order of the authors' rescaling."""
    low, high = ends
    centre, half = (high + low) / 2, (high - low) * factor / 2
    return torch.stack((centre - half, centre + half))
