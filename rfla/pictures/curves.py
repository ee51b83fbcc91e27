"""Curves and histograms of a run, by matplotlib (the Agg backend: no display is needed)."""

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfla.files import write_atomically
from rfla.pictures.text import fonts_for, short_names
from rfla.sizes import AITOD_EDGES

Array = np.ndarray[Any, np.dtype[Any]]
BLUE, RED = "#3b7dd8", "#d8553b"
OVERALL = {
    "metrics/ap": "AP",
    "metrics/ap25": "AP25",
    "metrics/ap50": "AP50",
    "metrics/ap75": "AP75",
}
LEAST_TOP = {"average precision": 0.01, "AP by object size": 0.01}
"""Where the axis of a panel ends at least: an AP of 0.00001 is nothing, and no curve to look at."""


def blank_figure(width: float, height: float) -> Any:
    """Return a figure of these inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """Return a figure and its axes, (rows, columns) always."""
    figure = blank_figure(width, height)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
    return figure, axes


def write_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    png = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # in a class name
        figure.savefig(png, dpi=110, format="png")
    write_atomically(path, png.getvalue(), flush=False)


def plot_results(path: Path, columns: Mapping[str, Sequence[float]]) -> None:
    """Write `results.png`, the curves of a run over its epochs.

    They are losses, AP, AP by size, positives per box, gradient norm and learning rate. What a run
    does not have (no validation, no box of a size) gets no curve, and no empty panel.

    Args:
        path: Where to write.
        columns: Columns of `results.csv`, by name, with `epoch` among them.
    """
    # The losses of a cascade have the stage before the name: train/s0.loss_cls.
    losses = [name for name in columns if name.startswith("train/") and "loss_" in name]
    sizes = [name for name in columns if name.startswith("metrics/ap_")]
    panels: dict[str, dict[str, str]] = {
        "training losses": {
            name: name.removeprefix("train/").replace("loss_", "") for name in losses
        },
        "average precision": OVERALL,
        "AP by object size": {name: name.removeprefix("metrics/ap_") for name in sizes},
        "positives per box": {"train/positives_per_box": ""},
        "gradient norm": {"train/grad_norm": ""},
        "learning rate at the end of the epoch": {"lr": ""},
    }
    curves = {title: _known_values(columns, names) for title, names in panels.items()}
    shown = {title: lines for title, lines in curves.items() if lines}
    if not shown:
        return
    across = min(3, len(shown))
    down = -(-len(shown) // across)
    figure, axes = new_figure(down, across, 4 * across, 3.2 * down)
    for axis, (title, lines) in zip(axes.flat, shown.items(), strict=False):
        _draw_curves(axis, title, columns["epoch"], lines)
    for axis in axes.flat[len(shown) :]:
        axis.remove()
    write_figure(figure, path)


def _known_values(
    columns: Mapping[str, Sequence[float]], names: Mapping[str, str]
) -> dict[str, Array]:
    """Return the columns that have a value to show, by their labels.

    -1 is AP where there were no boxes, so it is no value.
    """
    known = {}
    for name, label in names.items():
        values = np.array(columns.get(name, []), dtype=float)
        if (values >= 0).any():
            known[label] = np.where(values >= 0, values, np.nan)
    return known


def _draw_curves(
    axis: Any, title: str, epochs: Sequence[float], lines: Mapping[str, Array]
) -> None:
    """Draw the lines of one panel, with a legend above them where they have names."""
    axis.set_title(title, fontsize=10, loc="left")
    axis.set_xlabel("epoch", fontsize=9)
    axis.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    _whole_numbers(axis.xaxis)
    for label, values in lines.items():
        axis.plot(epochs, values, marker="o", markersize=3, linewidth=1.5, label=label or None)
    highest = max(
        float(np.nanmax(values[np.isfinite(values)], initial=0)) for values in lines.values()
    )
    room = 1.08  # above the curves, as a multiple of the highest
    if any(lines):
        letters = max(map(len, lines))
        across = 4 if letters < 6 else 3 if letters < 11 else 2
        axis.legend(
            fontsize=8,
            loc="upper left",
            ncols=across,
            borderaxespad=0.2,
            handlelength=1.5,
            edgecolor="none",
        )
        room += 0.1 * -(-len(lines) // across)  # so that no curve runs through a name
    axis.set_ylim(0, max(room * highest, LEAST_TOP.get(title, 0)) or 1)


def plot_labels(
    path: Path, boxes: Array, labels: Array, counts: Array, names: Sequence[str]
) -> None:
    """Write `labels.png`: boxes by class, by size and by image, and their widths and heights.

    Args:
        path: Where to write.
        boxes: (M, 4) xyxy px of the original images.
        labels: (M,) class indices; boxes of label -1 (regions that are ignored) are no class.
        counts: (N,) boxes in each image.
        names: Class names.
    """
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0.5, None)  # (M, 2) width, height
    with fonts_for(names):  # the first ticks, which a new figure has, decide the font of all
        figure, ((by_class, by_size), (by_image, by_shape)) = new_figure(2, 2, 11, 8)
        _draw_classes(by_class, np.bincount(labels[labels >= 0], minlength=len(names)), names)
    _draw_sizes(by_size, np.sqrt(sides.prod(axis=1)))
    _draw_counts(by_image, counts)
    _draw_shapes(by_shape, sides)
    write_figure(figure, path)


def _draw_classes(axis: Any, number: Array, names: Sequence[str]) -> None:
    """Draw the number of boxes of the 20 most frequent classes, the most frequent on top."""
    shown = np.argsort(-number, kind="stable")[:20][::-1]
    bars = axis.barh(range(len(shown)), number[shown], color=BLUE)
    # a name is no formula, whatever `$` it holds
    axis.set_yticks(range(len(shown)), short_names([names[i] for i in shown]), parse_math=False)
    axis.bar_label(bars, [f"{number[i]:,}" for i in shown], padding=3, fontsize=8)
    title = "boxes by class" + (", the 20 most frequent" if len(names) > 20 else "")
    axis.set_title(title, fontsize=10, loc="left")
    axis.set_xlabel("boxes", fontsize=9)
    axis.set_xlim(0, max(1.0, axis.get_xlim()[1]))  # a split without boxes has no scale of its own
    _whole_numbers(axis.xaxis)


def _draw_sizes(axis: Any, sizes: Array) -> None:
    """Draw a histogram of the roots of the areas, px."""
    largest = max(64.0, float(sizes.max(initial=0)) * 1.01)
    axis.hist(sizes, bins=np.geomspace(1, largest, 50), color=BLUE)
    axis.set_xscale("log", base=2)
    ticks = 2.0 ** np.arange(np.log2(largest) // 1 + 1)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    for edge in AITOD_EDGES:
        axis.axvline(edge, color=RED, linewidth=1, linestyle="--")
    axis.set_title("boxes by size; lines at 8, 16 and 32 px", fontsize=10, loc="left")
    axis.set_xlabel("square root of the area, px", fontsize=9)
    axis.set_ylabel("boxes", fontsize=9)
    axis.set_ylim(0, max(1.0, axis.get_ylim()[1]))
    _whole_numbers(axis.yaxis)


def _draw_counts(axis: Any, counts: Array) -> None:
    """Draw a histogram of the numbers of boxes in an image."""
    values, images = np.unique(counts, return_counts=True)
    most = int(counts.max(initial=0))
    step = -(-(most + 1) // 40)
    if (np.diff(values) >= step).all():
        axis.bar(values, images, width=step, color=BLUE)  # there is room for each number
        axis.set_xlim(-step / 2, most + step)
    else:  # every bar holds as many whole numbers, or the histogram would look like a comb
        axis.hist(counts, bins=np.arange(0, most + 1 + step, step) - 0.5, color=BLUE)
    axis.set_title("boxes in an image", fontsize=10, loc="left")
    axis.set_xlabel("boxes", fontsize=9)
    axis.set_ylabel("images", fontsize=9)
    for counted in (axis.xaxis, axis.yaxis):
        _whole_numbers(counted)


def _whole_numbers(axis: Any) -> None:
    """Put ticks of one axis at whole numbers alone, even where there are two boxes."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _draw_shapes(axis: Any, sides: Array) -> None:
    """Draw how often each width and height comes, in a square that holds 99.5 % of them."""
    from matplotlib.colors import LogNorm

    limit = float(np.quantile(sides, 0.995)) * 1.1 if len(sides) else 32.0
    # Most boxes have sides of whole px: these lie in the middle of a cell.
    edges = np.arange(0.5, limit + 1, max(1, round(limit / 60)))
    table, _, _ = np.histogram2d(sides[:, 0], sides[:, 1], [edges, edges])
    if table.any():
        seen = np.ma.masked_equal(table.T, 0)
        norm = LogNorm(0.5, max(table.max(), 10))
        picture = axis.pcolormesh(edges, edges, seen, cmap="Blues", norm=norm)
        bar = axis.figure.colorbar(picture, ax=axis, label="boxes", format="{x:g}")
        bar.ax.minorticks_off()
    axis.set(
        xlim=(0, edges[-1]),
        ylim=(0, edges[-1]),
        aspect="equal",
        xlabel="width, px",
        ylabel="height, px",
    )
    for sides_of in (axis.xaxis, axis.yaxis):
        _whole_numbers(sides_of)
    axis.set_title("width and height", fontsize=10, loc="left")
