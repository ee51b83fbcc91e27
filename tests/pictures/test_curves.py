"""Curves and histograms: written for any names of classes."""

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rfla.pictures.curves import plot_labels, plot_results


def test_letters_that_the_font_lacks_are_no_warning(tmp_path: Path) -> None:
    boxes = np.array([[0, 0, 10, 12], [5, 5, 9, 20]], float)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_labels(tmp_path / "l.png", boxes, np.array([0, 1]), np.array([2]), ("カー", "船"))
    assert cv2.imread(str(tmp_path / "l.png")) is not None


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be written, laid out."""
    drawn: list[Any] = []

    def keep(figure: Any, _: Path) -> None:
        figure.canvas.draw()
        drawn.append(figure)

    monkeypatch.setattr("rfla.pictures.curves.write_figure", keep)
    return drawn


def test_an_ap_of_nothing_is_drawn_as_nothing(figures: list[Any]) -> None:
    """Its panels reach to 0.01 at least; a learning rate of 0.00001 has an axis of its own."""
    columns = {"epoch": [1.0, 2], "metrics/ap": [0, 1e-5], "metrics/ap_t": [0, 1e-5], "lr": [1e-5]}
    plot_results(Path("r.png"), columns | {"lr": [1e-5, 1e-5]})
    tops = {axis.get_title(loc="left"): axis.get_ylim()[1] for axis in figures[0].axes}
    assert tops["average precision"] == tops["AP by object size"] == 0.01
    assert tops["learning rate at the end of the epoch"] < 2e-5


def test_long_names_and_ticks_of_the_labels_picture(figures: list[Any]) -> None:
    names = tuple(f"a class of a long name that goes on {i}" for i in range(2))
    plot_labels(Path("l.png"), np.array([[0, 0, 6, 5.0]]), np.array([0]), np.array([1]), names)
    by_class, by_size, _, by_shape = figures[0].axes[:4]
    assert [label.get_text() for label in by_class.get_yticklabels()] == [
        "a class of ... goes on 1",
        "a class of ... goes on 0",
    ]
    sizes = [label.get_text() for label in by_size.get_xticklabels()]
    assert sizes == ["1", "2", "4", "8", "16", "32", "64"]
    for axis in (by_shape.xaxis, by_shape.yaxis):
        ticks = axis.get_majorticklocs()
        assert (ticks == ticks.round()).all()
    cell = by_shape.collections[0]
    assert cell.get_array().max() == 1
    row, column = np.argwhere(cell.get_array() == 1)[0]
    corners = cell.get_coordinates()[row : row + 2, column : column + 2]
    assert corners.mean(axis=(0, 1)).tolist() == [6, 5]


def test_bars_stand_at_their_number_where_there_is_room(figures: list[Any]) -> None:
    """Else, 0 to 99 boxes in bars of three whole numbers, each holds as many."""
    for counts in (np.array([800, 800, 40]), np.arange(100)):
        plot_labels(Path("l.png"), np.zeros((0, 4)), np.zeros(0, np.int64), counts, ("a",))
    few, many = (figure.axes[2].patches for figure in figures)
    assert [bar.get_x() + bar.get_width() / 2 for bar in few] == [40, 800]
    assert [bar.get_height() for bar in few] == [1, 2]
    assert {bar.get_height() for bar in many[:-1]} == {3}
