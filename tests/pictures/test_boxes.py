"""Boxes on images: what is enlarged, what is drawn where."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from rfla.pictures.boxes import colour_of, draw_boxes, enlarge, tile_pictures, write_picture, zoom_factor
from rfla.pictures.curves import plot_labels, plot_results

NAMES = ("ship", "car")


@pytest.mark.parametrize(("size", "factor"), [((64, 64), 6), ((256, 256), 4), ((800, 800), 1), ((4000, 10), 1)])
def test_small_images_are_enlarged(size: tuple[int, int], factor: int) -> None:
    assert zoom_factor(*size) == factor


def test_a_pixel_stays_a_pixel() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert (enlarge(image, 3)[3:, :3] == image[1, 0]).all()


def test_the_line_runs_round_the_object_and_not_over_it() -> None:
    image = np.zeros((150, 150, 3), np.uint8)
    picture = draw_boxes(image, np.array([[10.0, 10, 16, 16]]), np.array([1]), NAMES)
    inside = picture[60:96, 60:96]  # the object's own pixels, six times as large
    assert (inside == 0).all()
    assert tuple(picture[59, 70]) == colour_of(1)


def test_points_in_the_colour_of_their_box() -> None:
    image = np.zeros((150, 150, 3), np.uint8)
    points = (np.array([[100.0, 50.0]]), np.array([0]))
    picture = draw_boxes(image, np.array([[10.0, 10, 16, 16]]), np.array([1]), NAMES, points=points)
    assert tuple(picture[300, 600]) == colour_of(1)


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_any_number_of_boxes(count: int) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(-20, 320, (count, 2))
    boxes = np.concatenate([corners, corners + 6], axis=1)
    image = np.zeros((300, 300, 3), np.uint8)
    picture = draw_boxes(image, boxes, rng.integers(0, 2, count), NAMES, rng.uniform(0, 1, count))
    assert picture.shape == (922, 900, 3)


def test_tiles_and_files(tmp_path: Path) -> None:
    sheet = tile_pictures([np.full((10, 20, 3), i, np.uint8) for i in (50, 100, 150)], gap=2)
    assert sheet.shape == (22, 42, 3)
    assert (sheet[0, 0, 0], sheet[0, 22, 0], sheet[12, 0, 0], sheet[21, 41, 0]) == (50, 100, 150, 12)
    write_picture(tmp_path / "x" / "a.png", np.full((4, 4, 3), (255, 0, 0), np.uint8))
    assert cv2.imread(str(tmp_path / "x" / "a.png"))[0, 0].tolist() == [0, 0, 255]


def test_curves(tmp_path: Path) -> None:
    columns = {"epoch": [1.0, 2.0], "train/loss_cls": [1.0, 0.5], "lr": [0.1, 0.1], "metrics/ap": [float("nan"), 0.1]}
    plot_results(tmp_path / "r.png", columns | {"metrics/ap_m": [-1.0, -1.0]})
    plot_labels(tmp_path / "l.png", np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(3), NAMES)
    plot_labels(tmp_path / "m.png", np.array([[0, 0, 6, 6.0]]), np.array([1]), np.array([1]), NAMES)
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("r.png", "l.png", "m.png"))
