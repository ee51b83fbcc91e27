"""Two sets of detections side by side: differences with bootstrap intervals, and changed images.

Images are drawn with replacement and the same draw is made for both, so what is common to both
cancels out. The interval holds the middle 95 percent of the differences of the draws.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from rfla.errors import MetricError, printable
from rfla.metrics.accumulate import ABSENT, accumulate, rank_detections
from rfla.metrics.analysis import Study, study
from rfla.metrics.arrays import Detections, FloatArray, GroundTruth
from rfla.metrics.detection_files import warn
from rfla.metrics.html_report import image_counts
from rfla.metrics.input_checks import find_doubts
from rfla.metrics.protocols import Protocol
from rfla.metrics.result import Metrics, summarize
from rfla.names import metric_label

DRAWS = 200
SHOWN_IMAGES = 10


@dataclass(frozen=True)
class Difference:
    """One metric of both; `low` and `high` bound the difference b - a, None if undefined."""

    name: str
    a: float
    b: float
    delta: float
    low: float | None
    high: float | None

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class ImageChange:
    """An image whose errors differ: counts at the best scores of each side, IoU 0.5."""

    image: int | str
    file: str
    missed: tuple[int, int]  # of a, of b
    wrong: tuple[int, int]

    @property
    def gain(self) -> int:
        """How many errors less b makes."""
        return self.missed[0] + self.wrong[0] - self.missed[1] - self.wrong[1]


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`."""

    names: tuple[str, str]
    protocol: str
    images: int
    draws: int
    figures: list[Difference]
    classes: list[Difference]  # AP of each class
    changed: list[ImageChange]  # largest change first

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        content = dataclasses.asdict(self)
        for rows, own in ((content["figures"], self.figures), (content["classes"], self.classes)):
            for row, difference in zip(rows, own, strict=True):
                row["clear"] = difference.clear
        for row, change in zip(content["changed"], self.changed, strict=True):
            row["gain"] = change.gain
        return content

    def table(self) -> Group:
        """Return three rich tables: figures, classes, and the images that changed most."""
        title = (
            f"{self.protocol} protocol, {self.images:,} images; "
            f"95% intervals from {self.draws} bootstrap samples of images"
            if self.images > 1
            else f"{self.protocol} protocol, 1 image, too few for intervals"
        )
        figures = self._differences(title, "metric", self.figures, metric_label)
        classes = self._differences("AP by class", "class", self.classes)
        return Group(figures, classes, *([self._images()] if self.changed else []))

    def _differences(
        self,
        title: str,
        kind: str,
        rows: Sequence[Difference],
        written: Callable[[str], str] = printable,
    ) -> Table:
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        table.add_column(kind)
        for name in (*self.names, "b - a", "interval"):
            table.add_column(Text(printable(name)), justify="right", overflow="fold")
        for row in rows:
            interval = (
                "" if row.low is None or row.high is None else f"{row.low:+.3f} .. {row.high:+.3f}"
            )
            mark = "*" if row.clear else " "
            defined = min(row.a, row.b) > ABSENT
            table.add_row(
                Text(written(row.name)),
                _shown(row.a),
                _shown(row.b),
                f"{row.delta:+.3f}{mark}" if defined else "- ",
                interval,
            )
        notes = ["* zero lies outside the interval"] if any(row.clear for row in rows) else []
        notes += ["of oLRP less is better"] if any(row.name == "olrp" for row in rows) else []
        table.caption = "; ".join(notes)
        table.caption_justify = "left"
        return table

    def _images(self) -> Table:
        better, worse = (sum(sign * change.gain > 0 for change in self.changed) for sign in (1, -1))
        title = f"Images: {better} better in b, {worse} worse"
        table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        table.add_column("image", overflow="fold")
        for name in ("missed a", "missed b", "false a", "false b"):
            table.add_column(name, justify="right")
        for change in self.changed[:SHOWN_IMAGES]:
            numbers = (*change.missed, *change.wrong)
            table.add_row(Text(printable(change.file or str(change.image))), *map(str, numbers))
        return table


def compare(
    gt: GroundTruth,
    a: Detections,
    b: Detections,
    protocol: Protocol,
    *,
    names: tuple[str, str] = ("a", "b"),
    draws: int = DRAWS,
    seed: int = 0,
    watch: Callable[[Iterable[int]], Iterable[int]] = iter,
    say: Callable[[str], None] = warn,
) -> Comparison:
    """Compare two sets of detections of the same ground truth.

    Args:
        gt: the true boxes of both.
        a: first detections.
        b: second detections.
        protocol: of `find_protocol`.
        names: of the two sides, for the table.
        draws: number of bootstrap draws of images; the time is about that of `draws` accumulations
            on each side.
        seed: of the draws.
        watch: passes the bootstrap samples on and may count them, for a progress bar.
        say: called with a line for each thing that is likely wrong with the detections.
    """
    studies = (study(gt, a, protocol), study(gt, b, protocol))
    for name, one in zip(names, studies, strict=True):
        for doubt in find_doubts(gt, one.detections, one.matches):
            say(f"{name}: {doubt}")
    metrics = (studies[0].metrics, studies[1].metrics)
    # Of one image all draws are alike: there is no interval.
    count = draws if len(gt.image_ids) != 1 else 0
    drawn = _draw(gt, studies, watch(range(count)), count, seed)  # (count, 2, figures + classes)
    names_of_figures = list(metrics[0].figures)
    figures = [
        _difference(name, metrics[0].figures[name], metrics[1].figures[name], drawn[:, :, i])
        for i, name in enumerate(names_of_figures)
    ]
    classes = [
        _difference(
            row["name"],
            row["ap"],
            metrics[1].per_class[k]["ap"],
            drawn[:, :, len(names_of_figures) + k],
        )
        for k, row in enumerate(metrics[0].per_class)
    ]
    return Comparison(
        names,
        metrics[0].protocol.name,
        len(gt.image_ids),
        count,
        figures,
        classes,
        changed_images(*studies),
    )


def changed_images(a: Study, b: Study) -> list[ImageChange]:
    """Return the images whose misses or false positives differ, largest change first."""
    gt = a.gt
    (missed_a, wrong_a, _), (missed_b, wrong_b, _) = image_counts(a), image_counts(b)
    size = np.abs(missed_a + wrong_a - missed_b - wrong_b)
    differs = np.flatnonzero((missed_a != missed_b) | (wrong_a != wrong_b))
    return [
        ImageChange(
            gt.image_ids[i],
            gt.files[i] if gt.files else "",
            (int(missed_a[i]), int(missed_b[i])),
            (int(wrong_a[i]), int(wrong_b[i])),
        )
        for i in differs[np.argsort(-size[differs], kind="stable")].tolist()
    ]


def _draw(
    gt: GroundTruth, studies: tuple[Study, Study], numbers: Iterable[int], draws: int, seed: int
) -> FloatArray:
    """Return (draws, 2, F) all figures and the AP of all classes in each draw."""
    rng, images = np.random.default_rng(seed), len(gt.image_ids)
    if not images:
        raise MetricError("nothing to compare: the ground truth has no images")
    ranked = [rank_detections(one.matches) for one in studies]
    values = np.zeros((draws, 2, len(studies[0].metrics.figures) + len(gt.names)))
    for draw in numbers:
        weights = rng.multinomial(images, np.full(images, 1 / images)).astype(np.float64)
        for side, one in enumerate(studies):
            curves = accumulate(one.matches, weights, ranked=ranked[side])
            values[draw, side] = _all_figures(summarize(curves, one.metrics.protocol, gt))
    return values


def _all_figures(metrics: Metrics) -> list[float]:
    return [*metrics.figures.values(), *(row["ap"] for row in metrics.per_class)]


def _difference(name: str, a: float, b: float, drawn: FloatArray) -> Difference:
    """Return the difference with its interval; drawn: (draws, 2), none of a single image."""
    defined = drawn[(drawn > ABSENT).all(axis=1)]
    delta = b - a if min(a, b) > ABSENT else 0.0
    if not len(defined) or min(a, b) <= ABSENT:
        return Difference(name, a, b, delta, None, None)
    low, high = np.percentile(defined[:, 1] - defined[:, 0], [2.5, 97.5])
    return Difference(name, a, b, delta, float(low), float(high))


def _shown(value: float) -> str:
    return "-" if value <= ABSENT else f"{value:.3f}"
