"""Maps of density: cells of round sizes, every object counted once, pictures of bounded size."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rfla.pictures.density import cell_side, count_cells, plot_density


def boxes_at(centres: np.ndarray) -> np.ndarray:
    return np.concatenate([centres - 2, centres + 2], axis=1)


def test_centres_are_counted_and_those_outside_at_the_border() -> None:
    centres = np.array([[5, 5], [9.9, 9.9], [10, 5], [29, 14], [31, 16], [-1, 3]], float)
    counts = count_cells(boxes_at(centres), (15, 30), 10)
    assert counts.tolist() == [[3, 1, 0], [0, 0, 2]]


def test_cells_are_small_where_objects_are_dense() -> None:
    rng = np.random.default_rng(0)
    dense = boxes_at(rng.normal((3000, 2000), 20, (500, 2)))
    sparse = boxes_at(rng.random((60, 2)) * [6000, 4000])
    assert cell_side(dense, (4000, 6000)) == 100  # of which 60 fit
    assert cell_side(sparse, (4000, 6000)) == 500
    assert cell_side(dense[:0], (1, 1)) == 1


@pytest.mark.parametrize("shape", [(400, 600), (1, 30_000), (30_000, 1), (1, 1)])
def test_the_picture_is_bounded(tmp_path: Path, shape: tuple[int, int]) -> None:
    height, width = shape
    boxes = boxes_at(np.random.default_rng(0).random((50, 2)) * [width, height])
    image = np.zeros((min(height, 500), min(width, 500), 3), np.uint8)
    plot_density(tmp_path / "d.png", image, boxes, shape, "$x^2$ \x1b[31m.png")
    picture = cv2.imread(str(tmp_path / "d.png"))
    assert max(picture.shape[:2]) <= 1400 and min(picture.shape[:2]) >= 300


def test_nothing_found(tmp_path: Path) -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    plot_density(tmp_path / "d.png", image, np.zeros((0, 4)), (40, 60), "a.png")
    assert (tmp_path / "d.png").exists()


def drawn(
    monkeypatch: pytest.MonkeyPatch, boxes: np.ndarray, shape: tuple[int, int], title: str = "a.png"
) -> Any:
    """The figure of a map, laid out, with the map and the bar of colours as its axes."""
    figures: list[Any] = []
    monkeypatch.setattr(
        "rfla.pictures.density.write_figure", lambda figure, _: figures.append(figure)
    )
    plot_density(Path("d.png"), np.zeros((40, 60, 3), np.uint8), boxes, shape, title)
    figures[0].canvas.draw()
    return figures[0]


@pytest.mark.parametrize("shape", [(300, 4000), (4000, 300), (400, 600)])
def test_a_map_is_not_stretched(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]) -> None:
    """It has the sides of the picture, its long one 9 inches or more, and a figure that fits it."""
    height, width = shape
    boxes = boxes_at(np.random.default_rng(0).random((50, 2)) * [width, height])
    figure = drawn(monkeypatch, boxes, shape)
    extent = figure.axes[0].get_window_extent()
    assert extent.width / extent.height == pytest.approx(width / height, rel=0.02)
    assert max(extent.width, extent.height) > 9 * figure.dpi
    assert min(figure.get_size_inches()) <= max(3, 11 * min(shape) / max(shape) + 1)


def test_the_bar_of_few_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """None without objects; one object has the number 1 alone; numbers are whole."""
    two = boxes_at(np.array([[10.0, 10], [11, 11]]))
    titles, ticks = [], []
    for boxes in (two[:0], two[:1], two):
        figure = drawn(monkeypatch, boxes, (40, 60))
        titles.append(figure.get_suptitle())
        for bar in figure.axes[1:]:
            low, high = bar.get_ylim()
            ticks.append([tick for tick in bar.get_yticks() if low <= tick <= high])
    assert titles == ["a.png: 0 objects", "a.png: 1 object", "a.png: 2 objects"]
    assert ticks == [[1], [1, 2]]
