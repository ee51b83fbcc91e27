"""What an inspection found, as text: splits, classes, sizes, faults, and whether training is safe."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from rfla.data.annotations import Annotations
from rfla.tools.inspect.looks import Look

Severity = Literal["error", "warning", "note"]
SIZE_EDGES = (
    0.0,
    2.0,
    4.0,
    8.0,
    16.0,
    32.0,
    64.0,
    np.inf,
)  # px of the square root of width x height
_BAR = 24


@dataclass(frozen=True)
class Finding:
    """One kind of fault: how bad, what, how often, where first. An error makes training unsafe."""

    severity: Severity
    what: str
    count: int
    where: str = ""

    def line(self) -> str:
        """The finding as one line of text."""
        return f"{self.severity}: {self.count:,} {self.what}" + (
            f" (first: {self.where})" if self.where else ""
        )


@dataclass
class DataReport:
    """Everything `rfla inspect` says about a data set.

    Attributes:
        name: Of the data set.
        source: Its YAML or directory.
        names: Class names.
        splits: The index of each split that could be read, by name.
        looks: What each of its images looks like, in the order of the index.
        findings: Faults, by split; "" for those between splits.
        pictures: Files that were drawn.
        repaired: Directory of the repaired copy, or None.
        repairs: What was left out of it and repaired in it, counted.
    """

    name: str
    source: Path
    names: Sequence[str] = ()
    splits: dict[str, Annotations] = field(default_factory=dict)
    looks: dict[str, list[Look]] = field(default_factory=dict)
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)
    repaired: Path | None = None
    repairs: Counter[str] = field(default_factory=Counter)

    @property
    def safe(self) -> bool:
        """Whether training on it is safe: no finding is an error."""
        return not any(
            finding.severity == "error" for found in self.findings.values() for finding in found
        )

    @property
    def exit_code(self) -> int:
        """0 where training is safe, else 1."""
        return 0 if self.safe else 1

    def add(self, split: str, finding: Finding) -> None:
        """Note a finding of a split, or of "" (between splits).

        Without an occurrence it is none.
        """
        if finding.count:
            self.findings.setdefault(split, []).append(finding)

    def text(self, width: int = 110) -> str:
        """The whole report as plain text, `width` columns wide."""
        page = StringIO()
        console = Console(file=page, width=width, color_system=None, highlight=False)
        console.print(f"{self.name} ({self.source})", soft_wrap=True)
        console.print(self._split_table())
        console.print(self._class_table())
        for title, lines in self._histograms():
            console.print(title)
            console.print("\n".join(lines) + "\n", markup=False)
        for split, found in self.findings.items():
            for finding in found:
                prefix = f"{split} - " if split else ""
                console.print(prefix + finding.line(), markup=False, soft_wrap=True)
        for path in self.pictures:
            console.print(f"written: {path}", markup=False, soft_wrap=True)
        for what, count in self.repairs.items():
            console.print(f"repaired copy: {count:,} {what}", markup=False, soft_wrap=True)
        console.print(
            "verdict: "
            + ("safe to train on" if self.safe else "NOT safe to train on: see the errors above")
        )
        if self.repaired:
            console.print(
                f"repaired copy: data={self.repaired / 'data.yaml'}", markup=False, soft_wrap=True
            )
        return page.getvalue()

    def _split_table(self) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("split")
        for title in (
            "images",
            "boxes",
            "ignored",
            "empty images",
            "boxes/image min med max",
            "image sizes",
        ):
            table.add_column(title, justify="right")
        for split, index in self.splits.items():
            counts = np.diff(index.box_start)
            found = [look.size for look in self.looks.get(split, []) if look.size]
            sizes = np.unique(found or index.image_hw, axis=0)
            apart = int((index.ignore | index.crowd).sum())
            low, high = sizes[np.argmin(sizes.prod(1))], sizes[np.argmax(sizes.prod(1))]
            span = f"{low[1]}x{low[0]}" + (f" to {high[1]}x{high[0]}" if len(sizes) > 1 else "")
            spread = f"{counts.min()} {np.median(counts):g} {counts.max()}"
            table.add_row(
                split,
                f"{len(index):,}",
                f"{len(index.boxes):,}",
                f"{apart:,}",
                f"{(counts == 0).sum():,}",
                spread,
                span,
            )
        return table

    def _class_table(self) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("class")
        for split in self.splits:
            table.add_column(split, justify="right")
        for title in ("all", "size px, 10 % median 90 %"):
            table.add_column(title, justify="right")
        sizes = np.concatenate(
            [box_sizes(index) for index in self.splits.values()] or [np.zeros(0)]
        )
        learned = [
            np.where(index.ignore | index.crowd, -1, index.labels) for index in self.splits.values()
        ]
        labels = np.concatenate(learned or [np.zeros(0, np.int64)])
        for label, name in enumerate(self.names):
            per_split = [int((one == label).sum()) for one in learned]
            own = sizes[labels == label]
            spread = (
                " ".join(f"{value:.1f}" for value in np.percentile(own, [10, 50, 90]))
                if len(own)
                else "-"
            )
            table.add_row(
                name, *(f"{count:,}" for count in per_split), f"{sum(per_split):,}", spread
            )
        return table

    def _histograms(self) -> list[tuple[str, list[str]]]:
        sizes = np.concatenate(
            [box_sizes(index) for index in self.splits.values()] or [np.zeros(0)]
        )
        counts = np.concatenate(
            [np.diff(index.box_start) for index in self.splits.values()] or [np.zeros(0, np.int64)]
        )
        per_image = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, np.inf)
        return [
            ("\nboxes by size (square root of the area, px)", _bars(sizes, SIZE_EDGES)),
            ("images by number of boxes", _bars(counts, per_image, whole=True)),
        ]


def box_sizes(index: Annotations) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(M,) square root of width x height, px; NaN for ignored boxes and crowds."""
    sides = np.clip(index.boxes[:, 2:].astype(np.float64) - index.boxes[:, :2], 0, None)
    sides[index.ignore | index.crowd] = np.nan
    return np.asarray(np.sqrt(sides[:, 0] * sides[:, 1]))


def _bars(values: np.ndarray, edges: Sequence[float], *, whole: bool = False) -> list[str]:
    """Lines of a histogram up to the last bar.

    `whole` numbers are named by the first and last of each bar.
    """
    heights = [int(((values >= low) & (values < high)).sum()) for low, high in pairwise(edges)]
    filled = max((place for place, count in enumerate(heights, 1) if count), default=0)
    most = max([*heights, 1])
    lines = []
    for low, high, count in zip(
        edges[:filled], edges[1 : filled + 1], heights[:filled], strict=True
    ):
        last = high - 1 if whole else high
        name = (
            f"{low:g} and more"
            if high == np.inf
            else f"{low:g}"
            if last == low
            else f"{low:g} to {last:g}"
        )
        lines.append(f"  {name:>14}  {count:>9,}  {'#' * round(_BAR * count / most)}".rstrip())
    return lines
