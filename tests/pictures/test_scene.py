"""Sheets of scenes: the densest places, without overlap, and a picture of bounded size."""

import cv2
import numpy as np
import pytest

from rfla.pictures.boxes import colour_of
from rfla.pictures.scene import DOTS, Scene, _write, densest_places, draw_scene
from rfla.pictures.text import put_text


def scene_of(centres: np.ndarray, shape: tuple[int, int], side: float = 8.0) -> Scene:
    boxes = np.concatenate([centres - side / 2, centres + side / 2], axis=1).astype(np.float32)
    count = len(centres)
    return Scene(boxes, np.zeros(count, np.int64), np.linspace(0.1, 0.9, count), ("a",), shape)


def test_the_fullest_first_and_none_overlaps() -> None:
    """30 objects round (300, 200), 10 round (900, 500), 1 at the far corner."""
    rng = np.random.default_rng(0)
    clusters = [rng.normal((300, 200), 8, (30, 2)), rng.normal((900, 500), 8, (10, 2))]
    places = densest_places(scene_of(np.concatenate([*clusters, [[1199, 799]]]), (800, 1200)))
    assert len(places) == 3
    for (x, y), place in zip([(300, 200), (900, 500), (1199, 799)], places, strict=True):
        assert place[0] <= x <= place[2] and place[1] <= y <= place[3]
    (a, b, c) = places
    for one, other in ((a, b), (a, c), (b, c)):
        low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
        assert (low >= high).any()
    assert (places[:, 2:] <= [1200, 800]).all() and (places[:, :2] >= 0).all()


def test_nothing_found() -> None:
    empty = scene_of(np.zeros((0, 2)), (4000, 5000))
    assert densest_places(empty).shape == (0, 4)
    sheet = draw_scene(np.zeros((400, 500, 3), np.uint8), empty, densest_places(empty), [])
    assert sheet.shape == (1280 + 28, 1600, 3)


@pytest.mark.parametrize(
    "shape", [(4000, 6000), (1, 30_000), (30_000, 1), (1, 1), (20_000, 20_000)]
)
def test_the_sheet_is_bounded(shape: tuple[int, int]) -> None:
    height, width = shape
    rng = np.random.default_rng(0)
    scene = scene_of(rng.random((300, 2)) * [width, height], shape)
    places = densest_places(scene)
    crops = [np.zeros((y2 - y1, x2 - x1, 3), np.uint8) for x1, y1, x2, y2 in places.tolist()]
    sheet = draw_scene(
        np.zeros((min(height, 900), min(width, 900), 3), np.uint8), scene, places, crops
    )
    assert sheet.shape[0] <= 1600 + 28 + 2 * (392 + 28) and sheet.shape[1] <= 1600
    assert sheet.dtype == np.uint8


def test_many_objects_are_dots_in_the_colour_of_their_class() -> None:
    centres = np.full((DOTS, 2), 10.0)
    centres[0] = (3000, 1000)
    scene = scene_of(centres, (2000, 4000))
    sheet = draw_scene(np.zeros((500, 1000, 3), np.uint8), scene, np.zeros((0, 4), int), [])
    assert tuple(sheet[400, 1200]) == colour_of(0)
    assert tuple(sheet[400, 1204]) == (0, 0, 0)


def test_the_edge_of_letters_lies_round_them() -> None:
    """Dark and white letters are as wide: no dark pixel is more than one from a white one."""
    edged, plain = (np.full((30, 200, 3), 120, np.uint8) for _ in range(2))
    _write(edged, "2: 31 objects, 100 %", (5, 20))
    put_text(plain, "2: 31 objects, 100 %", (5, 20), 0.5, (255, 255, 255))
    letters = cv2.dilate((plain != 120).any(axis=2).astype(np.uint8), np.ones((3, 3)))
    dark = (edged < 120).any(axis=2)
    assert dark.any() and not dark[letters == 0].any()


@pytest.mark.parametrize(("count", "words"), [(1, "1 object at"), (2, "2 objects at")])
def test_one_object_is_no_plural(monkeypatch: pytest.MonkeyPatch, count: int, words: str) -> None:
    written: list[str] = []
    monkeypatch.setattr("rfla.pictures.scene._write", lambda _, text, *__: written.append(text))
    scene = scene_of(np.full((count, 2), 30.0), (60, 60))
    crop = np.zeros((60, 60, 3), np.uint8)
    draw_scene(crop, scene, np.array([[0, 0, 60, 60]]), [crop])
    assert any(words in text for text in written)
