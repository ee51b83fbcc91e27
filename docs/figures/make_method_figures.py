"""Draw the two pictures of docs/method.md from the code itself.

    python docs/figures/make_method_figures.py

Numbers in the pictures come from `rfla.assign`, so they cannot drift from what it does.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Ellipse, Rectangle

from rfla.assign import (
    DISTANCES,
    HierarchicalAssigner,
    PriorGrid,
    receptive_field_distance,
    resnet_receptive_fields,
)
from rfla.assign.windows import window_radius

FOLDER = Path(__file__).parent
INK, BOX, FIELD, CHOSEN, BAND = "#333333", "#dc2626", "#2563eb", "#15803d", "#a16207"


def make_grid() -> PriorGrid:
    """Points of P2 and P3 on a 96 x 64 px piece of an image."""
    return PriorGrid.points([(16, 24), (8, 12)], [4, 8], resnet_receptive_fields(50, [2, 3]))


def draw_gaussian(axes: Axes, x: float, y: float, width: float, height: float, colour: str) -> None:
    """One and two standard deviations.

    Sigma is half a side, so one sigma touches the sides of the box.
    """
    for sigmas, alpha in ((2, 0.10), (1, 0.25)):
        axes.add_patch(
            Ellipse((x, y), sigmas * width, sigmas * height, color=colour, alpha=alpha, lw=0)
        )


def fields_and_boxes() -> None:
    """Left: boxes and fields as Gaussians.

    Right: score over box size at the nearest point of each level.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 3.6), gridspec_kw={"width_ratios": [1.15, 1]}
    )
    grid = make_grid()
    boxes = torch.tensor([[12.5, 15, 21, 23.5], [46, 18.5, 91, 52]])
    for x1, y1, x2, y2 in boxes.tolist():
        draw_gaussian(left, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, BOX)
        left.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=BOX, lw=1.4))
    for level, size in ((0, 4), (1, 14)):
        centres = grid.centers[grid.level_index == level]
        left.scatter(centres[:, 0], centres[:, 1], s=size, color=FIELD, alpha=0.35, lw=0)
    matched = HierarchicalAssigner(ignore_above=None)(grid, boxes)
    best = [int((receptive_field_distance(boxes[[i]], grid.boxes)[0]).argmax()) for i in range(2)]
    for prior in best:
        x1, y1, x2, y2 = grid.boxes[prior].tolist()
        draw_gaussian(left, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, FIELD)
        left.add_patch(
            Circle(
                ((x1 + x2) / 2, (y1 + y2) / 2), (x2 - x1) / 2, fill=False, ec=FIELD, lw=1, ls="--"
            )
        )
    chosen = grid.centers[matched >= 0]
    left.scatter(chosen[:, 0], chosen[:, 1], s=22, color=CHOSEN, zorder=3)
    left.set(xlim=(0, 96), ylim=(64, 0), aspect="equal", xlabel="px", ylabel="px")
    left.set_title(
        "boxes (red), the field of each one's best point (blue),\npoints assigned to them (green)",
        fontsize=9,
    )

    sizes = torch.logspace(np.log10(2), np.log10(256), 200)
    for level, field in zip(range(2, 6), resnet_receptive_fields(50, range(2, 6)), strict=True):
        square = torch.stack((-sizes / 2, -sizes / 2, sizes / 2, sizes / 2), dim=1)
        prior = torch.tensor([[-field / 4, -field / 4, field / 4, field / 4]])
        right.plot(
            sizes,
            receptive_field_distance(square, prior)[:, 0],
            label=f"P{level}: field {field / 2:g} px",
        )
    right.axhline(0.8, color=INK, lw=0.8, ls=":")
    right.text(2.1, 0.82, "from here up ignored,\nnot background", fontsize=7, color=INK)
    ticks = [2, 4, 8, 16, 32, 64, 128, 256]
    right.set_xscale("log", base=2)
    right.set_xticks(ticks, [str(tick) for tick in ticks])
    right.set(xlabel="side of a square box, px", ylabel="kld score, centres equal", ylim=(0, 1.05))
    right.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(0.0, 0.6))
    right.set_title("which level suits which size", fontsize=9)
    figure.tight_layout()
    figure.savefig(FOLDER / "fields_and_boxes.png", dpi=110, bbox_inches="tight", pad_inches=0.1)


def the_window() -> None:
    """Left: a box, its window, and what it takes.

    Right: cells of a window against cells of the grid.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 3.6), gridspec_kw={"width_ratios": [1.15, 1]}
    )
    grid = PriorGrid.points([(16, 24)], [4], [35])
    box = torch.tensor([[38.3, 24.9, 54.1, 39.5]])
    scores = receptive_field_distance(box, grid.scaled(0.9).boxes)[0]
    image = left.imshow(scores.view(16, 24), extent=(0, 96, 64, 0), cmap="Greys", vmin=0, vmax=1)
    figure.colorbar(image, ax=left, fraction=0.03, pad=0.02, label="kld score, second stage")
    reach = DISTANCES["kld"].reach(0.8, 17.5 * 0.9)
    centre = ((box[0, :2] + box[0, 2:]) / 2).tolist()
    cells = [round((value - 2) / 4) for value in centre]  # the nearest point
    for radius, colour in (
        (window_radius(grid, DISTANCES["kld"], 3, None), CHOSEN),
        (window_radius(grid.scaled(0.9), DISTANCES["kld"], 1, 0.8), BAND),
    ):
        corner = [4 * (cell - radius) for cell in cells]
        left.add_patch(
            Rectangle(
                corner, 4 * (2 * radius + 1), 4 * (2 * radius + 1), fill=False, ec=colour, lw=1.6
            )
        )
    left.add_patch(Circle(centre, reach, fill=False, ec=BAND, ls=":", lw=1.4))
    left.add_patch(
        Rectangle(
            box[0, :2].tolist(), *(box[0, 2:] - box[0, :2]).tolist(), fill=False, ec=BOX, lw=1.4
        )
    )
    matched = HierarchicalAssigner()(grid, box)
    for value, colour in ((0, CHOSEN), (-2, BAND)):
        points = grid.centers[matched == value]
        left.scatter(points[:, 0], points[:, 1], s=16, color=colour, zorder=3)
    left.set(xlim=(0, 96), ylim=(64, 0), xlabel="px", ylabel="px")
    left.set_title(
        "a box (red), its windows for the 3 best (green)\n"
        "and for the ignore band (brown; dotted: its reach)",
        fontsize=9,
    )

    sides = np.array([400, 800, 1600, 3200])
    shapes, levels = 3, (4, 8, 16, 32, 64)
    totals = [shapes * sum((-(-side // stride)) ** 2 for stride in levels) for side in sides]
    anchors = PriorGrid.anchors([(50, 50)] * 5, levels, resnet_receptive_fields(50, range(2, 7)))
    for stage, (k, above) in enumerate(((3, None), (1, 0.8))):
        radius = window_radius(
            anchors.scaled(0.9) if stage else anchors, DISTANCES["kld"], k, above
        )
        cells_of_window = (2 * radius + 1) ** 2 * len(levels) * shapes
        right.plot(
            sides,
            [cells_of_window] * len(sides),
            "o-",
            color=(CHOSEN, BAND)[stage],
            label=f"window, stage {stage + 1}: {cells_of_window:,}",
        )
    right.plot(sides, totals, "s-", color=INK, label="dense: every prior")
    right.set_xscale("log", base=2)
    right.set_yscale("log")
    right.set_xticks(sides, [str(side) for side in sides])
    right.set(xlabel="side of the image, px", ylabel="scores for one box (P2 to P6, 3 ratios)")
    right.legend(fontsize=7, frameon=False)
    right.set_title("scores that one box needs", fontsize=9)
    figure.tight_layout()
    figure.savefig(FOLDER / "window.png", dpi=110, bbox_inches="tight", pad_inches=0.1)


if __name__ == "__main__":
    fields_and_boxes()
    the_window()
