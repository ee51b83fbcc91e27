"""Draw the curves of docs/results.md from the runs' `results.csv`, kept in docs/results.

Run from the repository root: `python docs/figures/make_results_figures.py`.
"""

import csv
from pathlib import Path

from matplotlib.figure import Figure

HERE = Path(__file__).parent
COLOURS = {"rfla": "#1f6fd1", "baseline": "#d8833b"}
PANELS = {"metrics/ap": "AP", "metrics/ap_vt": "AP very tiny (to 8 px)", "metrics/ap_t": "AP tiny (8 to 16 px)"}


def curves(data: str) -> None:
    """Write `<data>.png`: AP over the epochs, RFLA beside the baseline rule."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for assigner, colour in COLOURS.items():
        with (HERE.parent / "results" / f"{data}_{assigner}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for axis, (column, title) in zip(axes, PANELS.items(), strict=True):
            values = [float(row[column]) for row in rows]
            if max(values) > 0:
                axis.plot(range(1, len(rows) + 1), values, color=colour, label=assigner, linewidth=1.8)
            axis.set_title(f"{data}: {title}", fontsize=10, loc="left")
            axis.set_xlabel("epoch", fontsize=8)
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.25)
    for axis in axes:
        axis.set_ylim(bottom=0)
    axes[0].legend(frameon=False, fontsize=9)
    figure.savefig(HERE / f"{data}.png", dpi=100)


if __name__ == "__main__":
    for name in ("nuclei3", "vehicles3"):
        if (HERE.parent / "results" / f"{name}_rfla.csv").exists():
            curves(name)
