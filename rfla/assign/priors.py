"""The prior grid: one effective receptive field for every point of every pyramid level (and every shape of it).

Shapes: L levels, S shapes (ratios) at a point, P priors of all levels. Priors run level by level, rows, columns, ratios.
Boxes are xyxy in px of the network input. The grid keeps the rows and the columns of each level apart: x1 and x2 depend on the
column and the shape alone, y1 and y2 on the row and the shape, which is what the windowed assigner needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Level:
    """One pyramid level: `columns` (W, S, 2) holds x1, x2, `rows` (H, S, 2) holds y1, y2, both float32 px."""

    stride: int
    shift: int
    rows: Tensor
    columns: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in cells."""
        return self.rows.shape[0], self.columns.shape[0]


@dataclass(frozen=True, eq=False)
class PriorGrid:
    """Priors of one network input size; build it with `points` or `anchors`."""

    levels: tuple[Level, ...]

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
            strides: px between neighbouring cells of each level.
            receptive_fields: Full side of the theoretical field of each level in px.
            fraction: Share of the theoretical field that is effective.
            offset: `"half"` puts the centres at `x * s + s // 2` (FCOS), `"corner"` at `x * s` (AutoAssign).
        """
        if offset not in ("half", "corner"):
            raise ValueError(f"offset must be 'half' or 'corner', not {offset!r}")
        levels = []
        for size, stride, field in _zip_levels(feature_sizes, strides, receptive_fields):
            shift = stride // 2 if offset == "half" else 0
            half = field * fraction / 2
            axes = []
            for count in size:
                centres = torch.arange(count, dtype=torch.float32) * stride + shift
                axes.append(torch.stack((centres - half, centres + half), dim=-1)[:, None])  # (count, 1, 2)
            levels.append(Level(stride, shift, axes[0], axes[1]))
        return cls(tuple(levels))

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

        With `fraction=1` and `receptive_fields` = strides times a scale these are the ordinary anchors of the baselines.

        Args:
            feature_sizes: (height, width) of each level in cells.
            strides: px between neighbouring cells of each level.
            receptive_fields: Full side of the theoretical field of each level in px.
            fraction: Share of the theoretical field that is effective.
            ratios: height / width; every field keeps its area.
            scales: Factors on the side; ratios run slower than scales.
        """
        root = torch.tensor(ratios, dtype=torch.float32).sqrt()
        factors = torch.tensor(scales, dtype=torch.float32)
        levels = []
        for size, stride, field in _zip_levels(feature_sizes, strides, receptive_fields):
            side = field * fraction
            axes = []
            for count, stretch in zip(
                size, (root, 1 / root), strict=True
            ):  # rows by sqrt(ratio), columns by its inverse
                half = 0.5 * ((side * stretch)[:, None] * factors).reshape(-1)  # (S,)
                base = torch.stack((-half, half), dim=-1)  # (S, 2)
                axes.append(base + (torch.arange(count, dtype=torch.float32) * stride)[:, None, None])
            levels.append(Level(stride, 0, axes[0], axes[1]))
        return cls(tuple(levels))

    @property
    def feature_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of each level in cells."""
        return tuple(level.size for level in self.levels)

    @property
    def strides(self) -> tuple[int, ...]:
        """Px between neighbouring cells of each level."""
        return tuple(level.stride for level in self.levels)

    @property
    def num_shapes(self) -> int:
        """Priors at each point."""
        return self.levels[0].rows.shape[1]

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

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.levels[0].rows.device

    @cached_property
    def boxes(self) -> Tensor:
        """(P, 4) float32 xyxy px."""
        parts = []
        for level in self.levels:
            height, width = level.size
            x = level.columns[None].expand(height, -1, -1, -1)  # (H, W, S, 2)
            y = level.rows[:, None].expand(-1, width, -1, -1)
            parts.append(torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1).reshape(-1, 4))
        return torch.cat(parts)

    @cached_property
    def centers(self) -> Tensor:
        """(P, 2) float32 x, y in px: where the points are, free of the rounding of the corners."""
        parts = []
        for level in self.levels:
            y, x = (torch.arange(count, device=self.device) * level.stride + level.shift for count in level.size)
            cells = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[:, :, None]  # (H, W, 1, 2)
            parts.append(cells.expand(-1, -1, self.num_shapes, -1).reshape(-1, 2).to(torch.float32))
        return torch.cat(parts)

    @cached_property
    def level_index(self) -> Tensor:
        """(P,) int64: the level of each prior, counted from 0."""
        counts = torch.tensor(self.level_counts, device=self.device)
        levels = torch.arange(len(self.levels), device=self.device)
        return levels.repeat_interleave(counts, output_size=len(self))

    def scaled(self, factor: float) -> "PriorGrid":
        """The same grid with every field `factor` times as wide and as high about its centre."""
        levels = tuple(
            replace(level, rows=_scale(level.rows, factor), columns=_scale(level.columns, factor))
            for level in self.levels
        )
        return PriorGrid(levels)

    def to(self, device: torch.device | str) -> "PriorGrid":
        """The same grid on another device."""
        if torch.device(device) == self.device:
            return self
        levels = tuple(
            replace(level, rows=level.rows.to(device), columns=level.columns.to(device)) for level in self.levels
        )
        return PriorGrid(levels)

    def valid(self, image_size: tuple[int, int] | None, allowed_border: float | None = None) -> Tensor:
        """(P,) bool: which priors an image of this size (height, width) has.

        A cell counts when it lies within the image rounded up to whole cells. With `allowed_border`, a field must also stay
        within the image widened by that many px on each side.
        """
        parts = []
        for level in self.levels:
            rows, columns = level_validity(level, image_size, allowed_border)  # (H, S), (W, S)
            parts.append((rows[:, None] & columns[None]).reshape(-1))
        return torch.cat(parts)


def level_validity(
    level: Level, image_size: tuple[int, int] | None, allowed_border: float | None
) -> tuple[Tensor, Tensor]:
    """Rows (H, S) and columns (W, S) of one level that an image has; see `PriorGrid.valid`."""
    if image_size is None:
        if allowed_border is not None:
            raise ValueError("allowed_border needs image_size")
        return tuple(torch.ones_like(axis[..., 0], dtype=torch.bool) for axis in (level.rows, level.columns))  # type: ignore[return-value]
    flags = []
    for axis, extent in zip((level.rows, level.columns), image_size, strict=True):
        cells = torch.arange(axis.shape[0], device=axis.device)[:, None]
        valid = (cells < -(-extent // level.stride)).expand(-1, axis.shape[1])
        if allowed_border is not None:
            valid = valid & (axis[..., 0] >= -allowed_border) & (axis[..., 1] < extent + allowed_border)
        flags.append(valid)
    return flags[0], flags[1]


def _scale(axis: Tensor, factor: float) -> Tensor:
    """Scale intervals (..., 2) about their centres, in the float order of the authors' rescaling."""
    low, high = axis.unbind(-1)
    centre, half = (high + low) / 2, (high - low) * factor / 2
    return torch.stack((centre - half, centre + half), dim=-1)


def _zip_levels(
    feature_sizes: Sequence[tuple[int, int]], strides: Sequence[int], receptive_fields: Sequence[float]
) -> list[tuple[tuple[int, int], int, float]]:
    if not len(feature_sizes) == len(strides) == len(receptive_fields) > 0:
        raise ValueError(
            "feature_sizes, strides and receptive_fields must name the same levels, got "
            f"{len(feature_sizes)}, {len(strides)} and {len(receptive_fields)}"
        )
    return [
        ((int(size[0]), int(size[1])), int(stride), field)
        for size, stride, field in zip(feature_sizes, strides, receptive_fields, strict=True)
    ]
