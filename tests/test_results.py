"""`Results` and `Boxes` by hand: one image of 40 x 20 px with two detections."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from rfla.errors import RflaError
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


def test_a_single_box_holds_numbers(results: Results) -> None:
    for box, expected in zip(results.boxes, ((1, 0.9), (0, 0.25)), strict=True):
        assert (int(box.cls), float(box.conf)) == (expected[0], pytest.approx(expected[1]))
        assert box.xyxy[0].shape == (4,) and results.names[int(box.cls[0])] in ("ship", "car")
    assert type(results.boxes[:1].cls) is np.ndarray


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
        "category_name": "car",
    }
    rows = results.to_coco(7, category_ids=[3, 9])  # ids of a data set need no names
    assert [row["category_id"] for row in rows] == [9, 3]
    assert "category_name" not in rows[0]


def test_a_name_that_is_no_text_is_an_id_that_json_holds(results: Results) -> None:
    odd = replace(results, path=os.fsdecode(b"in/\xff.png"))
    assert odd.to_coco()[0]["image_id"] == "\ufffd"


def test_rows_for_fiftyone(results: Results) -> None:
    first, second = results.to_fiftyone()
    assert first["label"] == "car" and first["bounding_box"] == pytest.approx([0.1, 0.1, 0.2, 0.2])
    assert second["confidence"] == 0.25 and json.dumps(second)


def test_frames_and_pages_say_which(results: Results) -> None:
    assert repr(replace(results, frame=4)).startswith("Results('in/a.png (page 5)', 40 x 20 px")
    assert replace(results, frame=4, time=0.5)[:1].label == "in/a.png (0.50 s)"


def test_no_page_takes_the_file_of_another(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for page in (replace(results, frame=n, time=time) for n, time in ((0, None), (2, 0.5))):
        page.save()
        page.save_txt()
        page.save_crop()
        assert page.to_coco()[0]["image_id"] == page.stem
    written = sorted(path.as_posix() for path in Path().rglob("*.*"))
    marks = ("a_000002", "a_p1")
    crops = [
        f"crops/{name}/{mark}_{n}.png" for n, name in ((1, "car"), (2, "ship")) for mark in marks
    ]
    own = [f"{mark}{end}" for mark in marks for end in (".txt", "_pred.png")]
    assert written == sorted(crops + own)


def test_yolo_text(results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results.save_txt(tmp_path / "a.txt", save_conf=True)
    assert (tmp_path / "a.txt").read_text() == "1 0.2 0.2 0.2 0.2 0.9\n0 0.75 0.75 0.5 0.5 0.25\n"
    monkeypatch.chdir(tmp_path)
    results.save_txt()
    assert Path("a.txt").read_text() == "1 0.2 0.2 0.2 0.2\n0 0.75 0.75 0.5 0.5\n"
    results[:0].save_txt(tmp_path / "none.txt")
    assert (tmp_path / "none.txt").read_text() == ""


def test_picture(results: Results, tmp_path: Path) -> None:
    path = results.save(tmp_path / "deep" / "a.png")
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape[1] == 40 * 6  # small images are enlarged, by a whole factor
    assert results[:0].plot().max() > 0  # the legend says that there is nothing


def test_a_short_repr(results: Results) -> None:
    assert repr(results) == f"Results('in/a.png', 40 x 20 px, {results.verbose()})"


def test_a_picture_of_the_size_of_the_image(results: Results) -> None:
    assert results.plot(legend=False, scale=1).shape == (20, 40, 3)
    assert results.plot(legend=False, scale=3).shape == (60, 120, 3)


def test_crops(results: Results, tmp_path: Path) -> None:
    """Boxes 4..12 x 2..6 of class car and 20..40 x 10..20 of class ship."""
    paths = results.save_crop(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in paths] == ["car/a_1.png", "ship/a_2.png"]
    shapes = [cv2.imread(str(path)).shape for path in paths]
    assert shapes == [(4, 8, 3), (10, 20, 3)]


def test_crops_stay_below_their_directory(results: Results, tmp_path: Path) -> None:
    odd = Results(results.orig_img, results.path, ("../up", "[/red]"), results.boxes)
    paths = odd.save_crop(tmp_path / "crops")
    assert all(path.resolve().is_relative_to(tmp_path / "crops") for path in paths)


def test_data_frames_and_supervision(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the two libraries, which are not needed here, are handed."""
    frames = SimpleNamespace(DataFrame=dict)
    monkeypatch.setitem(sys.modules, "pandas", frames)
    frame = results.to_df()
    assert list(frame) == ["x1", "y1", "x2", "y2", "confidence", "class", "name"]
    assert frame["name"] == ["car", "ship"] and frame["x2"].tolist() == [12, 40]
    monkeypatch.setitem(
        sys.modules, "supervision", SimpleNamespace(Detections=lambda **given: given)
    )
    assert results.to_supervision()["data"]["class_name"].tolist() == ["car", "ship"]


@pytest.mark.parametrize("name", ["a.JPG", "a.webp", "a"])
def test_the_suffix_chooses_the_format(results: Results, tmp_path: Path, name: str) -> None:
    assert cv2.imread(str(results.save(tmp_path / name))) is not None


def test_what_cannot_be_written_is_one_line(results: Results, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "d.png").mkdir()
    refused = [
        (
            lambda: results.save(tmp_path / "o.xyz"),
            r"o\.xyz: .* as \.xyz; .* \.png, \.jpg, \.jpeg,",
        ),
        (lambda: results.save(tmp_path / "d.png"), r"d\.png: .* \(Is a directory\)"),
        (lambda: results.save_txt(tmp_path / "d.png"), r"d\.png: .* \(Is a directory\)"),
        (lambda: results.save_crop(tmp_path / "a.txt"), r"a\.txt/car: .* \(Not a directory\)"),
    ]
    for write, message in refused:
        with pytest.raises(RflaError, match=message):
            write()
    long = replace(results, orig_img=np.zeros((1, 70_000, 3), np.uint8))
    with pytest.raises(RflaError, match=r"l\.jpg: \.jpg holds no picture of 70000 x 1 px"):
        long[:0].save(tmp_path / "l.jpg", legend=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "d.png"]


@pytest.mark.parametrize(
    "given", [{"scale": -1}, {"scale": 1.5}, {"line_width": 1.5}, {"line_width": "a"}]
)
def test_pictures_of_no_size(results: Results, given: dict[str, object]) -> None:
    with pytest.raises(RflaError, match=r"(scale|line_width)=.*: must be a whole number from 1"):
        results.plot(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("ids", [(), [5, 5], [1, 2, 3]])
def test_an_id_for_each_class(results: Results, ids: list[int]) -> None:
    with pytest.raises(RflaError, match="category_ids: 2 different ids expected"):
        results.to_coco(category_ids=ids)
