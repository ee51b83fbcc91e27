"""Maps of density: cells of round sizes, every object counted once, pictures of bounded size."""

from pathlib import Path

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
