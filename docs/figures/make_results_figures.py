"""Draw the curves of docs/results.md from the runs' `results.csv`, kept in docs/results.

Run from the repository root: `python docs/figures/make_results_figures.py`.
"""

import csv
from pathlib import Path

from matplotlib.figure import Figure

HERE = Path(__file__).parent
COLOURS = {"rfla": "#1f6fd1", "baseline": "#d8833b"}
PANELS = {
    "metrics/ap": "AP",
    "metrics/ap_vt": "AP very tiny (to 8 px)",
    "metrics/ap_t": "AP tiny (8 to 16 px)",
    "metrics/ap_s": "AP small (16 to 32 px)",
}


def curves(data: str) -> None:
    """Write `<data>.png`: AP over the epochs, RFLA beside the baseline rule."""
    runs = {}
    for assigner in COLOURS:
        with (HERE.parent / "results" / f"{data}_{assigner}.csv").open(newline="") as file:
            runs[assigner] = list(csv.DictReader(file))
    panels = {
        column: title for column, title in PANELS.items() if float(runs["rfla"][-1][column]) >= 0
    }  # -1: no such box
    figure = Figure(figsize=(3.6 * len(panels), 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels))
    for assigner, colour in COLOURS.items():
        for axis, (column, title) in zip(axes, panels.items(), strict=True):
            values = [float(row[column]) for row in runs[assigner]]
            axis.plot(
                range(1, len(values) + 1), values, color=colour, label=assigner, linewidth=1.8
            )
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
