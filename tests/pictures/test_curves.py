"""Curves and histograms: written for any names of classes."""

import warnings
from pathlib import Path

import cv2
import numpy as np

from rfla.pictures.curves import plot_labels


def test_letters_that_the_font_lacks_are_no_warning(tmp_path: Path) -> None:
    boxes = np.array([[0, 0, 10, 12], [5, 5, 9, 20]], float)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_labels(tmp_path / "l.png", boxes, np.array([0, 1]), np.array([2]), ("カー", "船"))
    assert cv2.imread(str(tmp_path / "l.png")) is not None
