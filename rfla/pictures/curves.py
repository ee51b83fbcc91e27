"""Curves and histograms of a run, by matplotlib (the Agg backend: no display is needed)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
SIZE_LABELS = {
    "ap_vt": "AP very tiny (2-8 px)",
    "ap_t": "AP tiny (8-16 px)",
    "ap_s": "AP small (16-32 px)",
    "ap_m": "AP medium",
}


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """Return a figure and its axes, (rows, columns) always."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, axes


def plot_results(path: Path, columns: Mapping[str, Sequence[float]]) -> None:
    """Write `results.png`: losses, AP, AP by size, positives per box and learning rate over the epochs.

    Args:
        path: Where to write.
        columns: Columns of `results.csv`, by name, with `epoch` among them.
    """
    epochs = columns["epoch"]
    figure, axes = _figure(2, 3, 12, 6.4)
    losses = [name for name in columns if name.startswith("train/loss_")]
    panels: list[tuple[str, dict[str, str]]] = [
        ("training losses", {name: name.removeprefix("train/loss_") for name in losses}),
        ("average precision", {"metrics/ap": "AP", "metrics/ap50": "AP50", "metrics/ap75": "AP75"}),
        ("AP by object size", {f"metrics/{name}": label for name, label in SIZE_LABELS.items()}),
        ("positives per box", {"train/positives_per_box": ""}),
        ("gradient norm", {"train/grad_norm": ""}),
        ("learning rate at the end of the epoch", {"lr": ""}),
    ]
    for axis, (title, names) in zip(axes.flat, panels, strict=True):
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("epoch", fontsize=8)
        axis.xaxis.get_major_locator().set_params(integer=True)
        for name, label in names.items():
            values = np.asarray(columns.get(name, []), dtype=float)
            if len(values) and np.isfinite(values).any() and (values >= 0).any():
                axis.plot(epochs, values, marker="o", markersize=3, linewidth=1.5, label=label or None)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=8, frameon=False)
        axis.set_ylim(bottom=0)
    figure.savefig(path, dpi=110)


def plot_labels(path: Path, boxes: Array, labels: Array, counts: Array, names: Sequence[str]) -> None:
    """Write `labels.png`: boxes by class, by size, by image, and their widths against their heights.

    Args:
        path: Where to write.
        boxes: (M, 4) xyxy px of the original images.
        labels: (M,) class indices.
        counts: (N,) boxes in each image.
        names: Class names.
    """
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0.5, None)
    sizes = np.sqrt(sides.prod(axis=1))
    figure, axes = _figure(2, 2, 11, 8)
    by_class = np.bincount(labels, minlength=len(names))
    shown = np.argsort(-by_class)[:20][::-1]
    axes[0, 0].barh([names[i] for i in shown], by_class[shown], color="#3b7dd8")
    axes[0, 0].set_title("boxes by class", fontsize=10, loc="left")
    axes[0, 1].hist(sizes, bins=np.geomspace(1, 256, 50), color="#3b7dd8")
    axes[0, 1].set_xscale("log", base=2)
    axes[0, 1].xaxis.set_major_formatter("{x:g}")
    for edge in (8, 16, 32):
        axes[0, 1].axvline(edge, color="#d8553b", linewidth=1, linestyle="--")
    axes[0, 1].set_title("boxes by size, square root of the area in px (lines at 8, 16, 32)", fontsize=10, loc="left")
    axes[1, 0].hist(counts, bins=40, color="#3b7dd8")
    axes[1, 0].set_title("boxes in an image", fontsize=10, loc="left")
    axes[1, 1].scatter(sides[:, 0], sides[:, 1], s=2, alpha=0.3, color="#3b7dd8")
    limit = float(np.quantile(sides, 0.995)) * 1.1 if len(sides) else 32.0
    axes[1, 1].set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
    axes[1, 1].set_title("width and height in px", fontsize=10, loc="left")
    figure.savefig(path, dpi=110)
