"""`Results` and `Boxes` by hand: one image of 40 x 20 px with two detections."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from rfla.results import Boxes, Results


@pytest.fixture
def results() -> Results:
    boxes = Boxes(
        np.array([[4, 2, 12, 6], [20, 10, 40, 20]], np.float32),
        np.array([0.9, 0.25], np.float32),
        np.array([1, 0]),
        (20, 40),
    )
    return Results(np.zeros((20, 40, 3), np.uint8), "in/a.png", ("ship", "car"), boxes)


def test_forms_of_a_box(results: Results) -> None:
    boxes = results.boxes
    assert boxes.xywh.tolist() == [[8, 4, 8, 4], [30, 15, 20, 10]]
    np.testing.assert_allclose(boxes.xyxyn[0], [0.1, 0.1, 0.3, 0.3])
    np.testing.assert_allclose(boxes.xywhn[1], [0.75, 0.75, 0.5, 0.5])


def test_selecting(results: Results) -> None:
    assert [len(results[key]) for key in (0, slice(1), results.boxes.conf > 0.5, [1, 0])] == [
        1,
        1,
        1,
        2,
    ]
    assert [len(one) for one in results] == [1, 1]
    assert results[1].boxes.cls.tolist() == [0]


def test_words_and_plain_values(results: Results) -> None:
    assert results.verbose() == "1 ship, 1 car"
    assert results[:0].verbose() == "nothing"
    first = json.loads(results.to_json())[0]
    assert (first["name"], first["class"], first["box"]) == (
        "car",
        1,
        {"x1": 4.0, "y1": 2.0, "x2": 12.0, "y2": 6.0},
    )


def test_coco_rows(results: Results) -> None:
    row = results.to_coco()[0]
    assert row == {
        "image_id": "a",
        "category_id": 2,
        "bbox": [4.0, 2.0, 8.0, 4.0],
        "score": pytest.approx(0.9),
    }
    assert [row["category_id"] for row in results.to_coco(7, category_ids=[3, 9])] == [9, 3]


def test_yolo_text(results: Results, tmp_path: Path) -> None:
    results.save_txt(tmp_path / "a.txt", save_conf=True)
    assert (tmp_path / "a.txt").read_text() == "1 0.2 0.2 0.2 0.2 0.9\n0 0.75 0.75 0.5 0.5 0.25\n"
    results[:0].save_txt(tmp_path / "none.txt")
    assert (tmp_path / "none.txt").read_text() == ""


def test_picture(results: Results, tmp_path: Path) -> None:
    path = results.save(tmp_path / "deep" / "a.png")
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape[1] == 40 * 6  # small images are enlarged, by a whole factor
    assert results[:0].plot().max() > 0  # the legend says that there is nothing
