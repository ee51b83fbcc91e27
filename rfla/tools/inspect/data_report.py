"""What an inspection found, as text: splits, classes, sizes, faults, and the verdict."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rfla.data.annotations import Annotations
from rfla.data.record import is_object
from rfla.tools.inspect.image_summary import ImageSummary

Severity = Literal["error", "warning", "note"]

_SIZE_EDGES = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, np.inf)  # px of the square root of the area
_COUNT_EDGES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, np.inf)  # boxes of an image
_BAR = 24  # letters of the longest bar of a histogram
_SPLIT_TITLES = (
    "images",
    "boxes",
    "ignored",
    "empty images",
    "boxes/image min med max",
    "image sizes",
)


@dataclass(frozen=True)
class Finding:
    """One kind of fault: how bad, what, how often, where first. An error makes training unsafe."""

    severity: Severity
    what: str
    count: int
    where: str = ""

    def line(self) -> str:
        """The finding as one line of text."""
        first = f" (first: {self.where})" if self.where else ""
        return f"{self.severity}: {self.count:,} {self.what}{first}"


@dataclass
class DataReport:
    """Everything `rfla inspect` says about a data set.

    Attributes:
        name: Of the data set.
        source: Its YAML or directory.
        names: Class names.
        splits: The annotations of each split that could be read, by name.
        images: A summary of each of its images, in their order.
        unreadable: The splits that could not be read.
        findings: Faults, by split; "" for those between splits.
        pictures: Files that were drawn.
        repaired: Directory of the repaired copy, or None.
        repairs: What was left out of it and repaired in it, counted.
        assignment: What a model's assigner does with the boxes, as text, or "".
    """

    name: str
    source: Path
    names: Sequence[str] = ()
    splits: dict[str, Annotations] = field(default_factory=dict)
    images: dict[str, list[ImageSummary]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)
    repaired: Path | None = None
    repairs: Counter[str] = field(default_factory=Counter)
    assignment: str = ""

    @property
    def safe(self) -> bool:
        """Whether training on it is safe: no finding is an error."""
        return "error" not in self._severities()

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

    def verdict(self) -> str:
        """Whether to train on it, in one line."""
        if not self.safe:
            return "NOT safe to train on: see the errors above"
        if "warning" in self._severities():
            return "safe to train on; read the warnings above first"
        return "safe to train on"

    def text(self, width: int = 110) -> str:
        """The whole report as plain text, `width` columns wide."""
        page = StringIO()
        console = Console(file=page, width=width, color_system=None, highlight=False, markup=False)

        def say(line: str) -> None:
            console.print(line, soft_wrap=True)

        say(f"{self.name} ({self.source})")
        console.print(self._split_table())
        console.print(self._class_table())
        say("\nboxes by size (square root of the area, px)")
        say("\n".join(_bars(self._sizes(), _SIZE_EDGES)) + "\n")
        say("images by number of boxes")
        say("\n".join(_bars(self._boxes_of_images(), _COUNT_EDGES, whole=True)) + "\n")
        if self.assignment:
            say(self.assignment + "\n")
        for split, findings in self.findings.items():
            for finding in findings:
                say((f"{split} - " if split else "") + finding.line())
        for path in self.pictures:
            say(f"written: {path}")
        for what, count in self.repairs.items():
            say(f"repaired copy: {count:,} {what}")
        say(f"verdict: {self.verdict()}")
        if self.repaired:
            say(f"repaired copy: data={self.repaired / 'data.yaml'}")
        return page.getvalue()

    def _severities(self) -> set[Severity]:
        return {finding.severity for found in self.findings.values() for finding in found}

    def _sizes(self) -> NDArray[np.float64]:
        sizes = [box_sizes(index) for index in self.splits.values()]
        return np.concatenate([np.zeros(0), *sizes])

    def _boxes_of_images(self) -> NDArray[np.int64]:
        counts = [np.diff(index.box_start) for index in self.splits.values()]
        return np.concatenate([np.zeros(0, np.int64), *counts])

    def _split_table(self) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("split")
        for title in _SPLIT_TITLES:
            table.add_column(title, justify="right")
        for split, index in self.splits.items():
            counts = np.diff(index.box_start)
            table.add_row(
                split,
                f"{len(index):,}",
                f"{len(index.boxes):,}",
                f"{int((~is_object(index)).sum()):,}",
                f"{(counts == 0).sum():,}",
                f"{counts.min()} {np.median(counts):g} {counts.max()}",
                self._span_of_sizes(split),
            )
        return table

    def _span_of_sizes(self, split: str) -> str:
        """The smallest and the largest image of a split, width x height px."""
        found = [image.size for image in self.images.get(split, []) if image.size]
        sizes = np.unique(found or self.splits[split].image_hw, axis=0).astype(np.int64)
        area = sizes.prod(axis=1)
        low, high = sizes[np.argmin(area)], sizes[np.argmax(area)]
        span = f"{low[1]}x{low[0]}"
        return f"{span} to {high[1]}x{high[0]}" if len(sizes) > 1 else span

    def _class_table(self) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("class")
        for split in self.splits:
            table.add_column(split, justify="right")
        for title in ("all", "size px, 10 % median 90 %"):
            table.add_column(title, justify="right")
        sizes = self._sizes()
        labels_of_splits = [
            np.where(is_object(index), index.labels, -1) for index in self.splits.values()
        ]
        labels = np.concatenate([np.zeros(0, np.int64), *labels_of_splits])
        for label, name in enumerate(self.names):
            counts = [int((labels_of == label).sum()) for labels_of in labels_of_splits]
            own = sizes[labels == label]
            spread = "-"
            if len(own):
                low, middle, high = np.percentile(own, [10, 50, 90])
                spread = f"{low:.1f} {middle:.1f} {high:.1f}"
            columns = [f"{count:,}" for count in counts]
            table.add_row(name, *columns, f"{sum(counts):,}", spread)
        return table


def box_sizes(index: Annotations) -> NDArray[np.float64]:
    """(M,) square root of width x height, px; NaN for what is no object."""
    sides = np.clip(index.boxes[:, 2:].astype(np.float64) - index.boxes[:, :2], 0, None)
    sides[~is_object(index)] = np.nan
    return np.asarray(np.sqrt(sides[:, 0] * sides[:, 1]))


def _bars(values: NDArray[Any], edges: Sequence[float], *, whole: bool = False) -> list[str]:
    """Lines of a histogram up to the last bar.

    Bars of `whole` numbers are named by the first and the last that they count.
    """
    heights = [int(((values >= low) & (values < high)).sum()) for low, high in pairwise(edges)]
    filled = max((number for number, count in enumerate(heights, 1) if count), default=0)
    most = max([*heights, 1])
    lines = []
    for (low, high), count in zip(pairwise(edges[: filled + 1]), heights, strict=False):
        last = high - 1 if whole else high
        if high == np.inf:
            name = f"{low:g} and more"
        else:
            name = f"{low:g}" if last == low else f"{low:g} to {last:g}"
        lines.append(f"  {name:>14}  {count:>9,}  {'#' * round(_BAR * count / most)}".rstrip())
    return lines
