"""The plots of an evaluation as PNG bytes. Matplotlib is loaded when one is drawn.

True positives are green, misses red and false positives blue, as in the pictures of the RFLA paper.
"""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfla.metrics.analysis import SCORE_BINS, Analysis, recall_axis
from rfla.metrics.protocols import Protocol
from rfla.pictures.text import fonts_for, short_names
from rfla.sizes import LARGEST

LINES = ("#1b7f5c", "#c8553d", "#2f5da8", "#8a6fb0", "#b58a1b", "#4a4a4a", "#3aa6b9", "#d17ba7")
KIND_COLOURS = {
    "correct": "#2a9d5c",
    "duplicate": "#a9c9f0",
    "class": "#6d9de0",
    "localisation": "#3a6fc4",
    "background": "#1b3a78",
}
FATE_COLOURS = {
    "found": "#2a9d5c",
    "badly placed": "#f2c14e",
    "taken for another class": "#ee8d4b",
    "not seen": "#cf3b3b",
}
PALE = ("badly placed", "duplicate")  # dark ink on these
CONFUSED_CLASSES = 20  # more are no longer read in one picture
FEW_BOXES = 10  # a window with fewer is drawn hollow
SOFT = "#777777"  # ink of what is beside the point
GRID = {"color": "#dddddd", "linewidth": 0.7}


def draw_figures(analysis: Analysis, protocol: Protocol) -> dict[str, bytes]:
    """Return every figure by its file name without suffix.

    Those that have nothing to show are left out.
    """
    figures: dict[str, Callable[[], bytes | None]] = {
        "pr_by_iou": lambda: _pr_curves(
            analysis.precision_by_iou, "Precision and recall by IoU", "IoU {}"
        ),
        "pr_by_size": lambda: _pr_curves(
            {
                size_label(protocol, name): curve
                for name, curve in analysis.precision_by_size.items()
            },
            "Precision and recall by size, IoU 0.5",
            "{}",
        ),
        "by_size": lambda: _size_curve(analysis),
        "errors": lambda: _errors(analysis, protocol),
        "calibration": lambda: _calibration(analysis),
        "confusion": lambda: _confusion(analysis),
    }
    with warnings.catch_warnings(), fonts_for(analysis.names):
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # in a class name
        drawn = {name: draw() for name, draw in figures.items()}
    return {name: png for name, png in drawn.items() if png is not None}


def size_label(protocol: Protocol, name: str) -> str:
    """Return a size range with its px, as `vt 0-8 px`."""
    for size, low, high in protocol.sizes:
        if size == name:
            return f"{name} {low:g} px up" if high >= LARGEST else f"{name} {low:g}-{high:g} px"
    return name


def _canvas(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    """Return an empty figure, in inches, and its axes; no display is needed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", **GRID)
        axis.set_axisbelow(True)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _pr_curves(curves: Mapping[str, Sequence[float]], title: str, label: str) -> bytes | None:
    drawn = {name: curve for name, curve in curves.items() if curve}
    if not drawn:
        return None
    figure, (axis,) = _canvas(5.6, 4.2)
    for colour, (name, curve) in zip(LINES, drawn.items(), strict=False):
        axis.plot(
            recall_axis(),
            curve,
            color=colour,
            linewidth=2,
            label=f"{label.format(name)}: {np.mean(curve):.3f}",
        )
    axis.set(
        xlim=(0, 1),
        ylim=(0, 1.02),
        xlabel="recall",
        ylabel="precision, mean over classes",
        title=title,
    )
    _legend_below(axis, columns=3, title="average precision")
    return _png(figure)


def _legend_below(axis: Any, columns: int, title: str | None = None) -> None:
    """Name the curves below the axis: they may lie anywhere in it."""
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.14)}
    axis.legend(frameon=False, ncols=columns, fontsize=9, title=title, **place)


def _size_curve(analysis: Analysis) -> bytes | None:
    curve = analysis.by_size
    if not curve.size:
        return None
    figure, (axis,) = _canvas(5.6, 4.2)
    counts = axis.twinx()
    counts.bar(curve.size, curve.boxes, width=[s * 0.15 for s in curve.size], color="#00000018")
    counts.set_ylabel("true boxes in the window (bars)", color="#777777")
    counts.tick_params(axis="y", colors="#777777")
    counts.spines[["top"]].set_visible(False)
    axis.set_zorder(counts.get_zorder() + 1)  # the lines over the bars
    axis.patch.set_visible(False)
    few = np.array(curve.boxes) < FEW_BOXES
    for values, colour, label in (
        (curve.recall, LINES[0], "recall"),
        (curve.ap, LINES[1], "AP, mean over classes"),
    ):
        axis.plot(curve.size, values, color=colour, linewidth=2, label=label)
        for hollow in (True, False):
            at = np.flatnonzero(few == hollow)
            face = "white" if hollow else colour
            axis.plot(
                np.array(curve.size)[at],
                np.array(values)[at],
                "o",
                color=colour,
                markersize=4,
                mfc=face,
            )
    if few.any():
        axis.plot(
            [],
            [],
            "o",
            color="#777777",
            mfc="white",
            markersize=4,
            label=f"fewer than {FEW_BOXES} boxes",
        )
    axis.set_xscale("log", base=2)
    ticks = [t for t in 2.0 ** np.arange(0, 11) if curve.size[0] / 1.5 <= t <= curve.size[-1] * 1.5]
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.set(
        ylim=(0, 1.02),
        xlabel="object size, px of sqrt(area); windows of half an octave",
        ylabel="recall, AP",
        title="Recall and AP at IoU 0.5 against object size",
    )
    _legend_below(axis, columns=3)
    return _png(figure)


def _errors(analysis: Analysis, protocol: Protocol) -> bytes | None:
    if not analysis.sizes:
        return None
    figure, (fates, kinds) = _canvas(11.4, 4.2, columns=2)
    labels = [size_label(protocol, name) for name in analysis.sizes]
    _shares(fates, labels, analysis.box_fates, FATE_COLOURS)
    fates.set_title("What became of the true boxes", pad=10)
    fates.set_ylabel("share of the true boxes")
    _shares(kinds, labels, analysis.detection_kinds, KIND_COLOURS)
    kinds.set_title("What the detections were", pad=10)
    kinds.set_ylabel("share, above the optimal scores")
    if not np.any(list(analysis.detection_kinds.values())):
        kinds.text(0.5, 0.5, "no detections", transform=kinds.transAxes, ha="center", color=SOFT)
    return _png(figure)


def _shares(
    axis: Any, labels: Sequence[str], parts: Mapping[str, Sequence[int]], colours: Mapping[str, str]
) -> None:
    """Draw a bar to 100 % for each size, with each share that has room, and the total below."""
    counts = np.array(list(parts.values()), np.float64)  # (kinds, sizes)
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    places, bottom = np.arange(len(labels)), np.zeros(len(labels))
    for name, share in zip(parts, shares, strict=True):
        axis.bar(
            places,
            share,
            0.72,
            bottom=bottom,
            color=colours[name],
            label=name,
            edgecolor="white",
            linewidth=0.5,
        )
        for place in np.flatnonzero(share >= 0.05).tolist():
            ink = "#222222" if name in PALE else "white"
            middle = bottom[place] + share[place] / 2
            axis.text(
                place,
                middle,
                f"{share[place]:.0%}",
                ha="center",
                va="center",
                fontsize=9,
                color=ink,
            )
        bottom += share
    totals = counts.sum(axis=0).astype(np.int64)
    names = [label.replace(" ", "\n", 1) for label in labels]
    axis.set_xticks(
        places,
        [f"{name}\nn = {_short_count(total)}" for name, total in zip(names, totals, strict=True)],
        fontsize=9,
    )
    axis.set_ylim(0, 1)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1), reverse=True)


def _calibration(analysis: Analysis) -> bytes | None:
    calibration = analysis.calibration
    if not calibration.count:
        return None
    figure, (axis,) = _canvas(5.6, 4.2)
    axis.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--", label="score = share")
    axis.plot(
        calibration.score,
        calibration.precision,
        color=LINES[2],
        linewidth=2,
        marker="o",
        label="detections",
    )
    _write_counts(axis, calibration.score, calibration.count)
    title = f"Calibration at IoU 0.5 (expected calibration error {calibration.error:.3f})"
    xlabel = "score, mean of the bin (above: detections in it)"
    axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=xlabel, ylabel="share of correct detections")
    axis.set_title(title, fontsize=11, pad=20)
    _legend_below(axis, columns=2)
    return _png(figure)


def _write_counts(axis: Any, scores: Sequence[float], counts: Sequence[int]) -> None:
    """Write the detections of each bin above the axis and the middle of the bin, off the curve."""
    for score, count in zip(scores, counts, strict=True):
        number = min(int(score * SCORE_BINS + 1e-6), SCORE_BINS - 1)  # a mean may be rounded down
        place = ((number + 0.5) / SCORE_BINS, 1.03)
        axis.text(*place, _short_count(count), ha="center", va="bottom", fontsize=8, color=SOFT)


def _confusion(analysis: Analysis) -> bytes | None:
    table = np.array(analysis.confusion, np.float64)
    if not table.sum():
        return None
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    shown = _most_confused(table)
    left_out = len(analysis.names) - len(shown)
    names = [*short_names([analysis.names[label] for label in shown]), "background"]
    cells = np.ix_([*shown, -1], [*shown, -1])
    table, share = table[cells], share[cells]

    side = float(np.clip(0.55 * len(names), 2.6, 13))  # inches of the table alone
    figure, (axis,) = _canvas(side + 2.8, side + 2.2)
    figure.set_layout_engine(
        "compressed"
    )  # knows of the square cells; "constrained" cut the label of the rows
    picture = axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axis.grid(False)
    # a name is no formula, whatever `$` it holds
    as_is: dict[str, Any] = {"parse_math": False}
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axis.set_xticks(range(len(names)), names, **turned, **as_is)
    axis.set_yticks(range(len(names)), names, **as_is)
    axis.set(
        xlabel="detected as (background: missed)",
        ylabel="true class (background: detections of nothing)",
    )
    title = "Confusion at IoU 0.5 and the optimal scores"
    if left_out:
        title += f"\nthe {len(shown)} classes with most errors; {left_out} others are left out"
    figure.suptitle(title)
    figure.colorbar(picture, ax=axis, label="share of the row", fraction=0.046, pad=0.03)
    for row, column in np.argwhere(table > 0):
        colour = "white" if share[row, column] > 0.5 else "#333333"
        axis.text(
            column,
            row,
            f"{table[row, column]:.0f}",
            ha="center",
            va="center",
            fontsize=8,
            color=colour,
        )
    axis.add_patch(_hatched(len(names) - 1))
    return _png(figure)


def _most_confused(table: NDArray[np.float64]) -> list[int]:
    """Return the labels of at most `CONFUSED_CLASSES` classes, ascending: those with most errors.

    Args:
        table: (K + 1, K + 1) rows truth, columns detected, last one background.
    """
    right = np.diag(table)
    errors = table.sum(axis=0) + table.sum(axis=1) - 2 * right
    most = np.lexsort((-right[:-1], -errors[:-1]))[:CONFUSED_CLASSES]
    return sorted(most.tolist())


def _short_count(count: int) -> str:
    """Return a count in at most five characters up to a million: `9,876`, `24k`."""
    return f"{count:,}" if count < 10_000 else f"{count / 1000:,.0f}k"


def _hatched(corner: int) -> Any:
    """Return what covers the cell of background taken for background, which nothing can count."""
    from matplotlib.patches import Rectangle

    return Rectangle(
        (corner - 0.5, corner - 0.5),
        1,
        1,
        fill=False,
        hatch="////",
        edgecolor="#bbbbbb",
        linewidth=0,
    )
