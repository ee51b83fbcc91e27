"""The figures of an evaluation: what is written into them, and that nothing lies on a curve."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from rfla.metrics import find_protocol, plots
from rfla.metrics.analysis import Calibration
from rfla.metrics.plots import _calibration, _confusion, _errors, _most_confused, _pr_curves


@pytest.fixture
def as_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots come back as figures, laid out, and not as PNG."""

    def keep(figure: Any) -> Any:
        figure.canvas.draw()
        return figure

    monkeypatch.setattr(plots, "_png", keep)


@pytest.mark.parametrize(
    "names",
    [
        ["car"],
        ["vehicle", "ship", "storage-tank", "airplane", "person", "wind-mill"],
        [f"class of a long name {number}" for number in range(100)],
    ],
)
def test_no_word_of_the_confusion_is_cut(names):
    table = [[1] * (len(names) + 1)] * (len(names) + 1)
    png = _confusion(SimpleNamespace(confusion=table, names=names))
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    for edge in (picture[:, :3], picture[:, -3:], picture[:3], picture[-3:]):
        assert (edge > 200).all()


def test_the_confusion_of_many_classes_shows_those_with_most_errors():
    """Classes 30 and 31 are taken for each other, class 40 is missed; class 5 is often right."""
    table = np.zeros((101, 101))
    table[np.arange(100), np.arange(100)] = np.arange(100, 0, -1)  # without a mistake
    table[30, 31], table[40, -1], table[-1, 99] = 7, 3, 2
    assert _most_confused(table) == [*range(16), 30, 31, 40, 99]
    assert _most_confused(table[:5, :5]) == [0, 1, 2, 3]


@pytest.mark.usefixtures("as_figures")
def test_classes_of_long_names_can_be_told_apart():
    """Names that differ at their end alone: rows and columns have it."""
    names = [f"an extraordinarily long name {number}" for number in range(3)]
    axis = _confusion(SimpleNamespace(confusion=np.ones((4, 4)), names=names)).axes[0]
    for ticks in (axis.get_xticklabels(), axis.get_yticklabels()):
        words = [tick.get_text() for tick in ticks]
        assert words == [*(f"an extraord...ong name {i}" for i in range(3)), "background"]


@pytest.mark.usefixtures("as_figures")
def test_the_names_of_precision_curves_lie_on_none():
    curves = {name: [height] * 101 for name, height in (("0.5", 0.9), ("0.75", 0.5), ("0.9", 0.1))}
    (axis,) = _pr_curves(curves, "Precision and recall by IoU", "IoU {}").axes
    legend = axis.get_legend().get_window_extent()
    assert not axis.get_window_extent().overlaps(legend)
    assert legend.y1 < axis.xaxis.label.get_window_extent().y0


@pytest.mark.usefixtures("as_figures")
@pytest.mark.parametrize("precision", [0.02, 0.5, 0.99])
def test_nothing_is_written_on_the_curve_of_calibration(precision):
    """Counts of ten bins, also where the means of two are close, and the legend lie outside."""
    scores = [0.05, 0.15, 0.299, 0.3, 0.45, 0.55, 0.65, 0.75, 0.85, 1.0]
    bins = Calibration(scores, [precision] * 10, [13_314] * 9 + [2], 0.1)
    (axis,) = _calibration(SimpleNamespace(calibration=bins)).axes
    square = axis.get_window_extent()
    boxes = [text.get_window_extent() for text in axis.texts]
    assert [text.get_text() for text in axis.texts] == ["13k"] * 9 + ["2"]
    for box in (*boxes, axis.get_legend().get_window_extent()):
        assert not square.overlaps(box)
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    assert axis.title.get_window_extent().y0 > boxes[0].y1


@pytest.mark.usefixtures("as_figures")
@pytest.mark.parametrize(("count", "words"), [(0, ["no detections"]), (4, ["100%"])])
def test_a_panel_without_detections_says_so(count, words):
    parts = {"box_fates": {"not seen": [4]}, "detection_kinds": {"correct": [count]}}
    figure = _errors(SimpleNamespace(sizes=["t"], **parts), find_protocol("aitod"))
    assert [text.get_text() for text in figure.axes[1].texts] == words
