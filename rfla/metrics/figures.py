"""The figures of an evaluation as PNG bytes: the only file here that touches matplotlib, and only when called.

True positives are green, misses red and false positives blue, as in the pictures of the RFLA paper.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rfla.metrics.analysis import Analysis, recall_axis
from rfla.metrics.protocols import LARGEST, Protocol

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
GRID = {"color": "#dddddd", "linewidth": 0.7}


def draw_figures(analysis: Analysis, protocol: Protocol) -> dict[str, bytes]:
    """Return every figure by its file name without suffix; those that have nothing to show are left out."""
    figures: dict[str, Callable[[], bytes | None]] = {
        "pr_by_iou": lambda: _pr_curves(analysis.precision_by_iou, "Precision and recall by IoU", "IoU {}"),
        "pr_by_size": lambda: _pr_curves(
            {size_label(protocol, name): curve for name, curve in analysis.precision_by_size.items()},
            "Precision and recall by size, IoU 0.5",
            "{}",
        ),
        "by_size": lambda: _size_curve(analysis),
        "errors": lambda: _errors(analysis, protocol),
        "calibration": lambda: _calibration(analysis),
        "confusion": lambda: _confusion(analysis),
    }
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
        axis.plot(recall_axis(), curve, color=colour, linewidth=2, label=f"{label.format(name)}: {np.mean(curve):.3f}")
    axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision, mean over classes", title=title)
    axis.legend(frameon=False, title="average precision", alignment="left")
    return _png(figure)


def _size_curve(analysis: Analysis) -> bytes | None:
    curve = analysis.by_size
    if not curve.size:
        return None
    figure, (axis,) = _canvas(5.6, 4.2)
    axis.plot(curve.size, curve.recall, color=LINES[0], linewidth=2, marker="o", markersize=4, label="recall")
    axis.plot(
        curve.size, curve.ap, color=LINES[1], linewidth=2, marker="o", markersize=4, label="AP, mean over classes"
    )
    axis.set_xscale("log", base=2)
    ticks = [t for t in (2, 4, 8, 16, 32, 64, 128, 256) if curve.size[0] / 1.5 <= t <= curve.size[-1] * 1.5]
    axis.set_xticks(ticks, [str(t) for t in ticks])
    axis.set(
        ylim=(0, 1.02), xlabel="object size, px of sqrt(area)", title="Recall and AP at IoU 0.5 against object size"
    )
    axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    counts = axis.twinx()
    counts.bar(curve.size, curve.boxes, width=[s * 0.15 for s in curve.size], color="#00000018", zorder=0)
    counts.set_ylabel("boxes in a window of half an octave", color="#888888")
    counts.tick_params(axis="y", colors="#888888")
    counts.spines[["top"]].set_visible(False)
    return _png(figure)


def _errors(analysis: Analysis, protocol: Protocol) -> bytes | None:
    if not analysis.sizes:
        return None
    figure, (fates, kinds) = _canvas(11.4, 4.2, columns=2)
    labels = [size_label(protocol, name) for name in analysis.sizes]
    _stacked(fates, labels, analysis.box_fates, FATE_COLOURS)
    fates.set(title="What became of the true boxes", ylabel="true boxes")
    _stacked(kinds, labels, analysis.detection_kinds, KIND_COLOURS)
    kinds.set(title="What the detections were", ylabel="detections above the optimal scores")
    return _png(figure)


def _stacked(axis: Any, labels: Sequence[str], parts: Mapping[str, Sequence[int]], colours: Mapping[str, str]) -> None:
    bottom = np.zeros(len(labels))
    places = np.arange(len(labels))
    for name, counts in parts.items():
        axis.bar(places, counts, 0.65, bottom=bottom, color=colours[name], label=name, edgecolor="white", linewidth=0.5)
        bottom += counts
    good = next(iter(parts.values()))  # found, correct
    for place, total, first in zip(places, bottom, good, strict=True):
        axis.annotate(f"{first / total:.0%}" if total else "", (place, total), ha="center", va="bottom", fontsize=9)
    axis.set_xticks(places, [label.replace(" ", "\n", 1) for label in labels])
    axis.set_ylim(0, max(bottom.max(initial=0) * 1.12, 1))
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))


def _calibration(analysis: Analysis) -> bytes | None:
    calibration = analysis.calibration
    if not calibration.count:
        return None
    figure, (axis,) = _canvas(5.6, 4.2)
    axis.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--", label="score = precision")
    axis.plot(calibration.score, calibration.precision, color=LINES[2], linewidth=2, marker="o", label="detections")
    for score, precision, count in zip(calibration.score, calibration.precision, calibration.count, strict=True):
        axis.annotate(f"{count:,}", (score, precision), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    title = f"Calibration at IoU 0.5 (expected error {calibration.error:.3f})"
    axis.set(
        xlim=(0, 1), ylim=(0, 1.05), xlabel="score, mean of the bin", ylabel="share of correct detections", title=title
    )
    axis.legend(frameon=False, loc="upper left")
    return _png(figure)


def _confusion(analysis: Analysis) -> bytes | None:
    table = np.array(analysis.confusion, np.float64)
    if not table.sum():
        return None
    names = [*analysis.names, "background"]
    side = float(np.clip(1.8 + 0.5 * len(names), 4.2, 14))
    figure, (axis,) = _canvas(side + 0.8, side)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axis.grid(False)
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="detected as", ylabel="true class", title="Confusion at IoU 0.5 and the optimal scores")
    for row, column in np.argwhere(table > 0) if len(names) <= 25 else []:
        colour = "white" if share[row, column] > 0.5 else "#333333"
        axis.text(column, row, f"{table[row, column]:.0f}", ha="center", va="center", fontsize=8, color=colour)
    return _png(figure)
