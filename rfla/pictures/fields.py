"""Picture of receptive fields: what each level looks at, and the boxes that each level serves.

Shapes: L levels, G boxes of one image, M boxes of a split. Boxes are xyxy px of the image.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rfla.errors import printable
from rfla.pictures.curves import Array, blank_figure, write_figure

LEVEL_COLOURS = ("#40dcff", "#ffd200", "#ff6ec8", "#50ff78", "#ff8c1e", "#be78ff")  # finest first
UNRANKED = "#e6e6e6"  # boxes that no level serves by its field
DARK = "#101018"
HEIGHT_OF_SCENE, HEIGHT_OF_FIELDS = 5.6, 3.4  # inches
LETTERS_AN_INCH = 11  # of the title
LEGEND = (
    "brightness: how much a pixel moves the middle cell, whose corner is at 0; white: the Gaussian "
    "fitted to it; dashed: the field in use\n(both at one standard deviation, which is half the "
    "side of an effective field); dotted: the theoretical field of the backbone. All in px."
)


@dataclass(frozen=True)
class FieldPanel:
    """One level. Numbers are px; places are from the upper left corner of the middle cell.

    Attributes:
        name: P2, P3, ...
        stride: Side of a cell.
        influence: (2 R, 2 R) share of each pixel; the corner of the cell is in the middle.
        theoretical: Corners x, y, x, y of the theoretical field of the backbone; None where it has
            none.
        sigma: Measured deviation of rows and of columns; nan where nothing is seen.
        centre: Measured centre, row and column.
        effective: Side of the field that its priors have.
        prior: Where the prior is, row and column alike.
        serves: The boxes that it serves, in words.
    """

    name: str
    stride: int
    influence: Array
    theoretical: tuple[float, float, float, float] | None
    sigma: tuple[float, float]
    centre: tuple[float, float]
    effective: float
    prior: float
    serves: str


@dataclass(frozen=True)
class Scene:
    """An image with its boxes, and the sizes of all boxes of its split.

    Attributes:
        image: (H, W, 3) uint8 RGB, as the network sees it.
        boxes: (G, 4).
        levels: (G,) the level that serves each, -1 for none.
        sizes: (M,) roots of the areas of all boxes of the split.
        size_levels: (M,) the level that serves each.
    """

    image: Array
    boxes: Array
    levels: Array
    sizes: Array
    size_levels: Array


def draw_fields(path: Path, title: str, panels: Sequence[FieldPanel], scene: Scene | None) -> None:
    """Write the picture.

    Args:
        path: Where to write.
        title: What the fields are of.
        panels: L levels, finest first.
        scene: Boxes to hold the fields against; None without a data set.
    """
    width = max(2.6 * len(panels), 11)
    figure = blank_figure(width, HEIGHT_OF_FIELDS + (0 if scene is None else HEIGHT_OF_SCENE))
    title = textwrap.fill(printable(title), int(LETTERS_AN_INCH * width))
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", parse_math=False)
    lower = figure
    if scene is not None:
        heights = (HEIGHT_OF_SCENE, HEIGHT_OF_FIELDS)
        upper, lower = figure.subfigures(2, 1, height_ratios=heights)
        picture, histogram = upper.subplots(1, 2, width_ratios=(1.15, 1))
        _draw_scene(picture, panels, scene)
        _draw_sizes(histogram, panels, scene)
    axes = lower.subplots(1, len(panels), squeeze=False)[0]
    for level, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        _draw_influence(axis, panel, _colour(level))
    lower.supxlabel(LEGEND, fontsize=8.5, x=0.01, ha="left")
    write_figure(figure, path)


def _draw_influence(axis: Any, panel: FieldPanel, colour: str) -> None:
    """Draw what a cell looks at, the Gaussian fitted to it, and the field that its prior has."""
    middle = len(panel.influence) // 2
    half = panel.effective / 2
    reach = 1.4 * max(2 * float(np.nanmax([*panel.sigma, 1.0])), half, panel.stride, 8)
    reach = min(int(reach), middle)
    window = slice(middle - reach, middle + reach)
    slopes = np.sqrt(panel.influence[window, window])
    brightest = max(float(slopes.max()), 1e-30)
    extent = (-reach, reach, reach, -reach)
    axis.imshow(slopes / brightest, cmap="magma", extent=extent, vmax=0.8)

    (row, column), (height, width) = panel.centre, panel.sigma
    if np.isfinite(row):
        _ellipse(axis, (column, row), (2 * width, 2 * height), color="white", linewidth=1.5)
    place, sides = (panel.prior, panel.prior), (2 * half, 2 * half)
    _ellipse(axis, place, sides, color=colour, linewidth=1.8, linestyle="--")
    if panel.theoretical is not None:
        x1, y1, x2, y2 = panel.theoretical
        style = {"color": "#b0b0b0", "linewidth": 1.2, "linestyle": ":"}
        _frame(axis, (x1, y1), (x2 - x1, y2 - y1), **style)
    axis.set(xlim=(-reach, reach), ylim=(reach, -reach))
    title = f"{panel.name}, stride {panel.stride}\nserves {panel.serves}"
    axis.set_title(title, fontsize=9, loc="left")
    axis.tick_params(labelsize=7)


def _draw_scene(axis: Any, panels: Sequence[FieldPanel], scene: Scene) -> None:
    """Draw boxes in the colour of their level, and each level's field once, in the middle."""
    height, width = scene.image.shape[:2]
    axis.imshow(scene.image, interpolation="nearest")
    for (x1, y1, x2, y2), level in zip(scene.boxes.tolist(), scene.levels.tolist(), strict=True):
        for colour, line in ((DARK, 2.4), (_colour(level), 1.2)):
            place, sides = (x1 - 0.5, y1 - 0.5), (x2 - x1, y2 - y1)
            _frame(axis, place, sides, color=colour, linewidth=line)
    for level, panel in enumerate(panels):
        place, sides = (width / 2, height / 2), (panel.effective, panel.effective)
        _ellipse(axis, place, sides, color=DARK, linewidth=3.2)
        _ellipse(axis, place, sides, color=_colour(level), linewidth=1.8, linestyle="--")
    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    title = "boxes by the level that serves them; dashed: the fields in use"
    axis.set_title(title, fontsize=10, loc="left")
    axis.tick_params(labelsize=7)


def _draw_sizes(axis: Any, panels: Sequence[FieldPanel], scene: Scene) -> None:
    """Draw how many boxes of each size each level serves, with a line at the side of its field."""
    largest = max(64.0, float(scene.sizes.max(initial=0)), *(panel.effective for panel in panels))
    bins = np.geomspace(1, 1.1 * largest, 60)
    parts = [scene.sizes[scene.size_levels == level] for level in range(-1, len(panels))]
    colours = [_colour(level) for level in range(-1, len(panels))]
    axis.hist(parts, bins=bins, stacked=True, color=colours, edgecolor=DARK, linewidth=0.3)
    for level, panel in enumerate(panels):
        share = len(parts[level + 1]) / max(len(scene.sizes), 1)
        label = f"{panel.name}: field {panel.effective:.0f} px, {share:.1%} of the boxes"
        style = {"color": _colour(level), "linewidth": 1.8, "linestyle": "--"}
        axis.axvline(panel.effective, color=DARK, linewidth=3)
        axis.axvline(panel.effective, label=label, **style)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("square root of the area, px of the network's input", fontsize=9)
    axis.set_ylabel("boxes", fontsize=9)
    axis.set_title("sizes of all boxes, by level", fontsize=10, loc="left")
    axis.legend(fontsize=8, loc="upper right", edgecolor="none", framealpha=1)
    axis.set_ylim(0, 1.35 * max(1.0, axis.get_ylim()[1]))


def _colour(level: int) -> str:
    return UNRANKED if level < 0 else LEVEL_COLOURS[level % len(LEVEL_COLOURS)]


def _ellipse(
    axis: Any, centre: tuple[float, float], sides: tuple[float, float], **style: Any
) -> None:
    """Draw an ellipse round (x, y) with these diameters along x and y."""
    from matplotlib.patches import Ellipse

    axis.add_patch(Ellipse(centre, *sides, fill=False, **style))


def _frame(
    axis: Any, corner: tuple[float, float], sides: tuple[float, float], **style: Any
) -> None:
    """Draw a rectangle from its upper left corner (x, y), with its width and height."""
    from matplotlib.patches import Rectangle

    axis.add_patch(Rectangle(corner, *sides, fill=False, **style))
