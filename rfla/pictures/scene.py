"""A scene that is too large to look at: one sheet with an overview and its densest places enlarged.

Shapes: N boxes, K places. Boxes and places are xyxy in px of the scene.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import cv2
import numpy as np

from rfla.errors import counted
from rfla.pictures.boxes import EDGE, add_legend, colour_of, draw_boxes, fit_into, tile_pictures
from rfla.pictures.text import put_text

Array = np.ndarray[Any, np.dtype[Any]]

OVERVIEW = 1600  # px: long side of the overview
PLACES, COLUMNS = 8, 4  # enlarged places, at most, and those in a row of the sheet
SHOWN = 392  # px: side of an enlarged place in the sheet, at most
OBJECTS = 10  # an enlarged place is so many objects wide
ENLARGED = 8  # times, at most
DOTS = 20_000  # objects from which the overview shows dots instead of boxes
WHITE = (255, 255, 255)


class Scene(NamedTuple):
    """The detections of a scene.

    Attributes:
        boxes: (N, 4) px.
        labels: (N,) class indices.
        scores: (N,).
        names: Class names.
        shape: Height and width, px.
    """

    boxes: Array
    labels: Array
    scores: Array
    names: Sequence[str]
    shape: tuple[int, int]


def densest_places(scene: Scene) -> Array:
    """Return (K, 4) squares that hold the most objects and do not overlap, the fullest first.

    They lie on a grid of half their side, which is chosen by the size of the objects.
    """
    height, width = scene.shape
    sides = (scene.boxes[:, 2:] - scene.boxes[:, :2]).max(axis=1, initial=0)
    wanted = OBJECTS * float(np.median(sides)) if len(sides) else SHOWN
    half = SHOWN // int(np.clip(SHOWN / max(wanted, 1), 1, ENLARGED)) // 2
    rows, columns = -(-height // half), -(-width // half)
    centres = (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2
    column = np.clip(centres[:, 0] // half, 0, columns - 1).astype(np.int64)
    row = np.clip(centres[:, 1] // half, 0, rows - 1).astype(np.int64)
    cells = np.bincount(row * columns + column, minlength=rows * columns).reshape(rows, columns)
    # How many objects the square of two by two cells holds that begins at each cell.
    padded = np.pad(cells, ((0, 1), (0, 1)))
    held = padded[:-1, :-1] + padded[1:, :-1] + padded[:-1, 1:] + padded[1:, 1:]
    held = held[: max(rows - 1, 1), : max(columns - 1, 1)]  # what begins later is a part of one

    places: list[tuple[int, int, int, int]] = []
    while len(places) < PLACES and held.max(initial=0) > 0:
        top, left = np.unravel_index(int(held.argmax()), held.shape)
        x1, y1 = int(left) * half, int(top) * half
        places.append((x1, y1, min(x1 + 2 * half, width), min(y1 + 2 * half, height)))
        held[max(top - 1, 0) : top + 2, max(left - 1, 0) : left + 2] = 0
    return np.array(places, np.int64).reshape(-1, 4)


def draw_scene(
    overview: Array,
    scene: Scene,
    places: Array,
    crops: Sequence[Array],
    line_width: int | None = None,
    show_labels: bool | None = None,
    *,
    legend: bool = True,
) -> Array:
    """Return the sheet of a scene, (H', W', 3) uint8 RGB.

    Args:
        overview: (h, w, 3) uint8 RGB, the scene in any size.
        scene: What was found.
        places: (K, 4) px, to be enlarged.
        crops: The pixels of each.
        line_width: As in `draw_boxes`.
        show_labels: As in `draw_boxes`, in the places.
        legend: As in `draw_boxes`.
    """
    height, width = scene.shape
    small, scale = fit_into(overview, scene.shape, OVERVIEW)
    boxes = scene.boxes * np.tile([small.shape[1] / width, small.shape[0] / height], 2)
    sheet = _overview(small, scene._replace(boxes=boxes))
    if legend:
        note = f"{width} x {height} px, shown at {100 * scale:.3g} %"
        sheet = add_legend(sheet, scene.labels, scene.names, note)
    for number, place in enumerate(places * scale, start=1):
        _mark(sheet, place, number)
    enlarged = [
        _enlarged(scene, place, crop, number, line_width, show_labels)
        for number, (place, crop) in enumerate(zip(places, crops, strict=True), start=1)
    ]
    rows = [
        tile_pictures(enlarged[start : start + COLUMNS], COLUMNS)
        for start in range(0, len(enlarged), COLUMNS)
    ]
    return _stacked([sheet, *rows])


def _overview(small: Array, scene: Scene) -> Array:
    """Return a reduced scene with its boxes, whose px are those of `small`; many are dots."""
    boxes, labels, scores, names, _ = scene
    if len(boxes) < DOTS:
        return draw_boxes(
            small, boxes, labels, names, scores, show_labels=False, legend=False, factor=1
        )
    picture = small.copy()
    order = np.argsort(scores, kind="stable")
    x, y = ((boxes[order, :2] + boxes[order, 2:]) / 2).astype(np.int64).T
    colours = np.array([colour_of(label) for label in range(len(names))], np.uint8)
    rows, columns = np.clip(y, 0, small.shape[0] - 1), np.clip(x, 0, small.shape[1] - 1)
    picture[rows, columns] = colours[labels[order]]
    return picture


def _mark(sheet: Array, place: Array, number: int) -> None:
    """Draw a place into the overview, with its number."""
    x1, y1, x2, y2 = (round(float(side)) for side in place)
    for colour, grown in ((EDGE, 1), (WHITE, 0)):
        corners = (x1 - grown, y1 - grown), (x2 + grown, y2 + grown)
        cv2.rectangle(sheet, *corners, colour, 1)
    tag = (x1, min(y1 + 18, sheet.shape[0]))
    cv2.rectangle(sheet, (x1, tag[1] - 18), (x1 + 4 + 10 * len(str(number)), tag[1]), EDGE, -1)
    _write(sheet, str(number), (x1 + 3, tag[1] - 4))


def _enlarged(
    scene: Scene,
    place: Array,
    crop: Array,
    number: int,
    line_width: int | None,
    show_labels: bool | None,
) -> Array:
    """Return one place with the boxes in it, and a line that says where it lies."""
    x1, y1, x2, y2 = place
    boxes = scene.boxes
    inside = (boxes[:, 0] < x2) & (boxes[:, 2] > x1) & (boxes[:, 1] < y2) & (boxes[:, 3] > y1)
    factor = max(1, SHOWN // max(crop.shape[:2]))
    picture = draw_boxes(
        crop,
        boxes[inside] - [x1, y1, x1, y1],
        scene.labels[inside],
        scene.names,
        scene.scores[inside],
        line_width,
        show_labels,
        legend=False,
        factor=factor,
    )
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    count = int(((centres >= place[:2]) & (centres < place[2:])).all(axis=1).sum())
    title = np.full((22, SHOWN, 3), 24, np.uint8)
    _write(title, f"{number}: {counted(count, 'object')} at ({x1}, {y1}), {factor}00 %", (5, 16))
    return _stacked([title, picture], gap=0)


def _stacked(pictures: Sequence[Array], gap: int = 6) -> Array:
    """Return pictures below each other, on a dark ground."""
    width = max(picture.shape[1] for picture in pictures)
    height = sum(picture.shape[0] + gap for picture in pictures) - gap
    sheet = np.full((height, width, 3), 12, np.uint8)
    top = 0
    for picture in pictures:
        sheet[top : top + picture.shape[0], : picture.shape[1]] = picture
        top += picture.shape[0] + gap
    return sheet


def _write(canvas: Array, text: str, origin: tuple[int, int]) -> None:
    """Write white letters with a dark edge."""
    x, y = origin
    # Thicker letters would be wider too, and their text longer than the white one.
    for right, down in product((-1, 0, 1), repeat=2):
        put_text(canvas, text, (x + right, y + down), 0.5, EDGE)
    put_text(canvas, text, origin, 0.5, WHITE)
