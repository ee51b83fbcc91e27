"""The picture of an assignment: which piece is shown, and where points, fields and boxes are."""

import numpy as np
import pytest

from rfla.pictures.assignment import BOX_COLOUR, FACTOR, LEVEL_COLOURS, WINDOW, draw_assignment

GREY = np.full((300, 400, 3), 90, np.uint8)


def test_the_piece_with_most_boxes_is_shown() -> None:
    """One box upper left, two lower right: the window is the corner, 288..400 x 188..300."""
    boxes = np.array([[10, 10, 20, 20], [380, 280, 390, 290], [350, 250, 360, 260]], np.float32)
    fields = np.array([[381.0, 281, 389, 289]])  # centre (385, 285): (97, 97) in the window
    picture = draw_assignment(GREY, boxes, fields, np.array([1]), (4, 8))
    assert picture.shape == (WINDOW * FACTOR + 24, WINDOW * FACTOR, 3)
    assert tuple(picture[97 * FACTOR, 97 * FACTOR]) == LEVEL_COLOURS[1]
    assert (
        tuple(picture[(250 - 188) * FACTOR - 2, (355 - 288) * FACTOR]) == BOX_COLOUR
    )  # upper side of the third box
    # the ellipse of the field has its leftmost point half a side, 4 px, from the centre
    ring = picture[97 * FACTOR, 93 * FACTOR].astype(int)
    assert np.abs(ring - LEVEL_COLOURS[1]).max() < np.abs(ring - 90).max()


def test_small_images_and_no_positives() -> None:
    picture = draw_assignment(
        GREY[:40, :60], np.array([[5.0, 5, 9, 9]]), np.zeros((0, 4)), np.zeros(0, int), (4, 8, 16)
    )
    assert picture.shape == (40 * FACTOR + 24, 60 * FACTOR, 3)


def test_the_legend_counts_the_points_in_the_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two boxes and two points lie in the window; a third of each is 270 px away."""
    written: list[str] = []
    monkeypatch.setattr(
        "rfla.pictures.assignment.put_text", lambda _, text, *__: written.append(text)
    )
    boxes = np.array([[10, 10, 20, 20], [380, 280, 390, 290], [350, 250, 360, 260]], np.float32)
    draw_assignment(GREY, boxes, boxes.astype(float), np.array([0, 0, 1]), (4, 8))
    assert written == ["boxes", "stride 4: 1 point", "stride 8: 1 point"]
