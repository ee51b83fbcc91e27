"""What an evaluation returns: named figures, a row for each class, and the curves behind them.

The figures of the AI-TOD protocol, in its order: ap ap25 ap50 ap75 ap_vt ap_t ap_s ap_m ar_100
ar_300 ar_1500 ar_vt ar_t ar_s ar_m olrp olrp_loc olrp_fp olrp_fn. A figure that nothing defines (no
box of that size) is -1, as in pycocotools.
"""

import math
from dataclasses import dataclass
from typing import Any

from rich.columns import Columns
from rich.console import Group
from rich.table import Table
from rich.text import Text

from rfla.errors import did_you_mean, printable
from rfla.metrics.accumulate import ABSENT, Curves
from rfla.metrics.arrays import FloatArray, GroundTruth
from rfla.metrics.olrp import LrpPoint
from rfla.metrics.protocols import Protocol


@dataclass(frozen=True, eq=False, repr=False)
class Metrics:
    """The figures of one evaluation.

    Every figure is also an attribute: `metrics.ap50`, `metrics.ar_1500`.

    Attributes:
        protocol: the rules.
        figures: by name, from 0 to 1; -1 where nothing defines one.
        per_class: for each class `name`, `boxes` and its figures, -1 as above; the parts of oLRP
            and `threshold` are NaN where nothing was found.
        curves: precision and recall behind them.
    """

    protocol: Protocol
    figures: dict[str, float]
    per_class: list[dict[str, Any]]
    curves: Curves

    def __repr__(self) -> str:
        return (
            f"Metrics({self.protocol.name}: "
            + ", ".join(f"{k}={v:.3f}" for k, v in self.figures.items())
            + ")"
        )

    def __getattr__(self, name: str) -> float:
        figures: dict[str, float] = self.__dict__.get("figures", {})
        if name in figures:
            return figures[name]
        raise AttributeError(
            f"no such metric in this protocol: '{name}'{did_you_mean(name, figures)}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything that goes into results.json; undefined values are None."""
        rows = [{key: _plain(value) for key, value in row.items()} for row in self.per_class]
        return (
            {"protocol": self.protocol.name}
            | {k: _plain(v) for k, v in self.figures.items()}
            | {"per_class": rows}
        )

    def table(self) -> Group:
        """Return two rich tables that fit 80 columns: the figures, and each class."""
        return Group(self._figure_table(), self._class_table())

    def _figure_table(self) -> Table:
        table = Table(
            title=f"{self.protocol.name} protocol",
            title_justify="left",
            show_header=False,
            box=None,
        )
        table.padding = (0, 1, 0, 0)
        sizes = self.protocol.size_names[1:]
        families = {
            "AP": [name for name in self.figures if name in ("ap", "ap25", "ap50", "ap75")],
            "AP by size": [f"ap_{size}" for size in sizes],
            **{
                f"AP{iou} by size": [f"ap{iou}_{size}" for size in sizes] for iou in (25, 50, 75)
            },  # TinyPerson
            "AR": [f"ar_{limit}" for limit in self.protocol.max_dets],
            "AR by size": [f"ar_{size}" for size in sizes],
            "oLRP, lower is better": [name for name in self.figures if name.startswith("olrp")],
        }
        table.add_column(no_wrap=True, min_width=21)
        table.add_column()
        rows = {
            title: [
                Text.assemble((_short(name), "dim"), f" {_shown(self.figures[name])}")
                for name in names
                if name in self.figures
            ]
            for title, names in families.items()
        }
        width = max(len(cell) for cells in rows.values() for cell in cells)
        for title, cells in rows.items():
            for cell in cells:
                cell.pad_right(width - len(cell))
            if cells:  # as many in a line as the terminal holds
                table.add_row(title, Columns(cells, padding=(0, 1)))
        return table

    def _class_table(self) -> Table:
        sizes = [f"ap_{size}" for size in self.protocol.size_names[1:]]
        rows = self.per_class[0] if self.per_class else {}
        columns = [
            name
            for name in ("boxes", "ap", "ap50", *sizes, "ar", "olrp", "threshold")
            if name in rows
        ]
        table = Table(
            title="by class; AP in the size ranges",
            title_justify="left",
            box=None,
            padding=(0, 1, 0, 0),
        )
        table.add_column("class", overflow="fold", min_width=6)
        for name in columns:
            title = {"threshold": "score"}.get(name, _short(name))
            table.add_column(title, justify="right", overflow="fold", min_width=5)
        for row in self.per_class:
            table.add_row(Text(printable(row["name"])), *(_shown(row[name]) for name in columns))
        return table


def summarize(
    curves: Curves, protocol: Protocol, gt: GroundTruth, use_categories: bool = True
) -> Metrics:
    """Make the figures of a protocol from its curves.

    The arrays are indexed here; the summary of pycocotools is never called: it takes AP at
    the wrong detection limit and knows no tiny sizes once the parameters are not those of COCO.
    """
    count = len(protocol.ious)
    precision, recall = curves.precision, curves.recall
    figures = _precision_figures(precision[..., 0], protocol) | _size_figures(curves, protocol)
    figures |= {
        f"ar_{limit}": mean_of(recall[:count, :, 0, m]) for m, limit in enumerate(protocol.max_dets)
    }
    for a, name in enumerate(protocol.size_names[1:], start=1):
        figures[f"ar_{name}"] = mean_of(recall[:count, :, a, -1])
    if protocol.lrp:
        points = curves.lrp[:, 0, -1]  # (K, 5)
        figures |= {
            _lrp_name(field): mean_of(points[:, i]) for i, field in enumerate(LrpPoint._fields[:4])
        }
    return Metrics(protocol, figures, _class_rows(curves, protocol, gt, use_categories), curves)


def mean_of(values: FloatArray) -> float:
    """Return the mean of what is defined, -1 where nothing is."""
    defined = values[values > ABSENT]  # NaN compares false
    return float(defined.mean()) if defined.size else ABSENT


def _precision_figures(precision: FloatArray, protocol: Protocol) -> dict[str, float]:
    """Return AP over all IoUs and at single ones, from the precision (T, ...) at any size."""
    figures = {"ap": mean_of(precision[: len(protocol.ious)])}
    for iou in (0.25, 0.5, 0.75):
        index = protocol.threshold_index(iou)
        if index is not None:
            figures[f"ap{round(iou * 100)}"] = mean_of(precision[index])
    return figures


def _size_figures(curves: Curves, protocol: Protocol) -> dict[str, float]:
    """Return AP by size; TinyPerson has one for each IoU."""
    figures = {}
    for a, name in enumerate(protocol.size_names[1:], start=1):
        figures[f"ap_{name}"] = mean_of(curves.precision[: len(protocol.ious), :, :, a])
        if protocol.ignoring == "iod":
            for t, iou in enumerate(protocol.ious):
                figures[f"ap{round(iou * 100)}_{name}"] = mean_of(curves.precision[t, :, :, a])
    return figures


def _class_rows(
    curves: Curves, protocol: Protocol, gt: GroundTruth, use_categories: bool
) -> list[dict[str, Any]]:
    """Return one row a class in label order, each with its own name and category id."""
    count, rows = len(protocol.ious), []
    names = list(zip(gt.names, gt.category_ids, strict=True)) if use_categories else [("all", None)]
    for k, (name, category) in enumerate(names):
        precision, recall = curves.precision[:, :, k], curves.recall[:, k]
        row: dict[str, Any] = {
            "name": name,
            "category_id": category,
            "boxes": int(curves.boxes[k, 0]),
        }
        row |= _precision_figures(precision[..., 0], protocol)
        row |= {
            f"ap_{size}": mean_of(precision[:count, :, a])
            for a, size in enumerate(protocol.size_names)
            if a
        }
        row["ar"] = mean_of(recall[:count, 0, -1])
        if protocol.lrp:
            row |= {
                _lrp_name(field): float(curves.lrp[k, 0, -1, i])
                for i, field in enumerate(LrpPoint._fields)
            }
        rows.append(row)
    return rows


def _lrp_name(field: str) -> str:
    return field if field in ("olrp", "threshold") else f"olrp_{field}"


def _short(name: str) -> str:
    """Return a figure's name without what its family says already."""
    return name.split("_", 1)[1] if "_" in name else name


def _plain(value: Any) -> Any:
    """Return a JSON value: NaN becomes None."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) or value == ABSENT else f"{value:.3f}"
    return str(value)
