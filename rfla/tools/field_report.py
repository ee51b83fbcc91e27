"""What `rfla rf` found, as a table and as JSON. Numbers are px."""

import math
from dataclasses import dataclass
from typing import Any

from rfla.fields import MeasuredField, TracedField


@dataclass(frozen=True)
class LevelFields:
    """The fields of one level of a pyramid.

    Attributes:
        name: P2, P3, ...
        stride: Between its cells.
        backbone: Theoretical field of the backbone's map of that stride; None above its last map.
        pyramid: Theoretical field of the level itself.
        measured: What it looks at.
        used: Full side that its priors have.
        effective: `fraction` of it.
        serves: Smallest and largest side of the square boxes, centred on a prior, that score
            highest on this level; None for none, or where the assigner does not rank by fields.
        boxes: Of the data set, those that score highest on it.
    """

    name: str
    stride: int
    backbone: TracedField | None
    pyramid: TracedField
    measured: MeasuredField
    used: float
    effective: float
    serves: tuple[float, float] | None
    boxes: int

    @property
    def serves_text(self) -> str:
        """The sizes that it serves, in words."""
        if self.serves is None:
            return "no box"
        low, high = self.serves
        return f"{low:.0f} px and more" if math.isinf(high) else f"{low:.0f} to {high:.0f} px"


@dataclass(frozen=True)
class FieldReport:
    """All levels, finest first, and what they were measured on.

    Attributes:
        title: Model, weights, images.
        levels: L levels.
        boxes: Of the data set; 0 without one.
    """

    title: str
    levels: tuple[LevelFields, ...]
    boxes: int

    def text(self) -> str:
        """Return the table."""
        rows = [self._cells(level) for level in self.levels]
        widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
        lines = ["  ".join(f"{name:>{width}}" for name, width in widths.items())]
        for row in rows:
            lines.append("  ".join(f"{row[name]:>{width}}" for name, width in widths.items()))
        return "\n".join([self.title, "", *lines, *self._reasons()])

    def _cells(self, level: LevelFields) -> dict[str, str]:
        found = level.measured
        cells = {
            "level": level.name,
            "stride": str(level.stride),
            "backbone": "-" if level.backbone is None else _side(level.backbone),
            "pyramid": _side(level.pyramid),
            "measured": f"{found.side:.0f}",
            "sigma": f"{found.sigma[0]:.1f} x {found.sigma[1]:.1f}",
            "centre": f"{found.offset[0]:+.1f}, {found.offset[1]:+.1f}",
            "error": f"{found.error:.2f}",
            "used": f"{level.used:.0f}",
            "effective": f"{level.effective:.1f}",
        }
        if any(one.serves for one in self.levels):
            cells["serves boxes of"] = level.serves_text
            cells |= {"boxes": f"{level.boxes / self.boxes:.1%}"} if self.boxes else {}
        return cells

    def _reasons(self) -> list[str]:
        """Say once why fields are unbounded."""
        fields = [field for level in self.levels for field in (level.backbone, level.pyramid)]
        reasons = {field.unbounded for field in fields if field is not None and field.unbounded}
        return [f"unbounded by {reason}" for reason in sorted(reasons)]

    def as_dict(self) -> dict[str, Any]:
        """Return the same for JSON; null where a field is unbounded or nothing is seen."""
        levels = [
            {
                "level": level.name,
                "stride": level.stride,
                "backbone": _traced(level.backbone),
                "pyramid": _traced(level.pyramid),
                "measured": {
                    "side": _finite(level.measured.side),
                    "sigma": [_finite(value) for value in level.measured.sigma],
                    "centre": [_finite(value) for value in level.measured.offset],
                    "error": _finite(level.measured.error),
                },
                "used": level.used,
                "effective": level.effective,
                "serves": None if level.serves is None else [_finite(px) for px in level.serves],
                "boxes": level.boxes,
            }
            for level in self.levels
        ]
        return {"title": self.title, "boxes": self.boxes, "levels": levels}


def _side(field: TracedField) -> str:
    return "unbounded" if field.unbounded else f"{field.side:.0f}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _traced(field: TracedField | None) -> dict[str, Any] | None:
    if field is None:
        return None
    return {
        "side": _finite(field.side),
        "centre": [_finite(value) for value in field.offset],
        "unbounded": field.unbounded,
    }
