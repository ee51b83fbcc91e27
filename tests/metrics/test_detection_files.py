"""Reading detections of files: ids as tools write them, file names, hostile JSON."""

import json

import numpy as np
import pytest

from rfla.errors import MetricError
from rfla.metrics import Detections, GroundTruth, detection_files, read_detections
from rfla.metrics.detection_files import to_coco

FILES = ("sub/a.1.png", "b.png", "07.jpg")


def truth(ids=(7, 3, 12), files=FILES, categories=(40, 2)):
    return GroundTruth(ids, [], [], [], names=("ship", "car"), category_ids=categories, files=files)


def one(**more):
    return {"image_id": 7, "category_id": 2, "bbox": [0, 0, 10, 10], "score": 0.5} | more


def read(tmp_path, gt, *entries, text=None):
    """The detections, read from a file, and what was said about them."""
    path, said = tmp_path / "dt.json", []
    path.write_text(json.dumps(entries) if text is None else text)
    return read_detections(path, gt, said.append), said


@pytest.mark.parametrize("image_id", [12, 12.0, "12", "12.0"])
@pytest.mark.parametrize("category_id", [2, 2.0, "2", "2.0"])
def test_ids_as_tools_write_them(tmp_path, image_id, category_id):
    found, said = read(tmp_path, truth(), one(image_id=image_id, category_id=category_id))
    assert (found.image_index.tolist(), found.labels.tolist(), said) == ([2], [1], [])


@pytest.mark.parametrize(
    ("image_id", "position"),
    [
        ("b.png", 1),
        ("b", 1),
        ("b.jpg", 1),  # another format of the same picture
        ("images/val/b.png", 1),
        ("C:\\data\\b.png", 1),
        ("a.1", 0),  # a stem with a dot
        ("a.1.png", 0),
        ("07", 2),  # a stem of digits: no image has the id 07
    ],
)
def test_images_named_by_their_file(tmp_path, image_id, position):
    found, said = read(tmp_path, truth(), one(), one(image_id=image_id))
    assert found.image_index.tolist() == [0, position]
    (text,) = said
    assert text.endswith("dt.json: 1 detection names its image by file name, not by id")


def test_an_id_wins_over_a_file_name(tmp_path):
    """Image 3 has the id, another one the stem "3"."""
    found, said = read(tmp_path, truth(files=("3.png", "b.png", "c.png")), one(image_id="3"))
    assert (found.image_index.tolist(), said) == ([1], [])


@pytest.mark.parametrize("image_id", ["x", "x.png"])
def test_a_file_name_that_two_images_have_names_none(tmp_path, image_id):
    gt = truth(files=("1/x.png", "2/x.png", "c.png"))
    with pytest.raises(MetricError, match=f"image_id '{image_id}' is not in the ground truth"):
        read(tmp_path, gt, one(image_id=image_id))


@pytest.mark.parametrize("in_memory", [False, True])
def test_categories_by_the_names_that_predict_writes(tmp_path, in_memory):
    """A model numbers its classes 1, 2; the data set has 40 for ship and 2 for car."""
    rows = [
        one(category_id=2, category_name="ship"),  # the id alone would mean car
        one(category_id=1, category_name="car"),  # the id alone is not in the ground truth
    ]
    if in_memory:
        found = read_detections(rows, truth())
    else:
        found, _ = read(tmp_path, truth(), *rows)
    assert found.labels.tolist() == [0, 1]
    with pytest.raises(MetricError, match="detection 1: category_name 'bus' is not in the ground"):
        read(tmp_path, truth(), rows[0], one(category_name="bus"))


def test_categories_by_their_ids_where_the_names_are_of_another_language(tmp_path):
    found, _ = read(tmp_path, truth(), one(category_id=40, category_name="Schiff"))
    assert found.labels.tolist() == [0]


def test_text_ids_of_the_ground_truth(tmp_path):
    found, said = read(tmp_path, truth(ids=("7", "x", "9")), one(image_id=7), one(image_id="x"))
    assert (found.image_index.tolist(), said) == ([0, 1], [])


def test_numbers_are_read_to_the_last_bit(tmp_path):
    """As Python reads them: 17 digits, whole numbers, exponents."""
    rng = np.random.default_rng(0)
    rows = [
        one(bbox=[*rng.normal(0, 300, 2).tolist(), *rng.exponential(9, 2).tolist()], score=score)
        for score in (0.1, 1e-300, 7, 123456789.123456789, 5e-324)
    ]
    found, _ = read(tmp_path, truth(), *rows)
    assert to_coco(found, truth()) == [row | {"score": float(row["score"])} for row in rows]


def test_lists_under_a_key_and_other_keys(tmp_path):
    gt, row = truth(), one(id=1, area=100, segmentation=[[0, 0, 1, 1]], name="a: b")
    for content in ([row], {"annotations": [row]}, {"predictions": [row]}):
        found, _ = read(tmp_path, gt, text=json.dumps(content))
        assert found.scores.tolist() == [0.5]


HOSTILE = {
    "deep": ("[" * 100_000, "not usable JSON .nested too deep"),
    "deep box": (json.dumps([one(bbox=0)]).replace("0,", "[" * 99_999 + ","), "JSON"),
    "long number": (json.dumps([one()]).replace("0.5", "9" * 5000), "not usable JSON"),
    "long fraction": (json.dumps([one()]).replace("0.5", "0." + "9" * 5000), None),
    "huge exponent": (json.dumps([one()]).replace("0.5", "1e999999"), "score .* is infinite"),
    "half surrogate": (json.dumps([one(image_id="\ud800")]), "half of a surrogate pair"),
    "half surrogate aside": (json.dumps([one(note="\ud800")]), "half of a surrogate pair"),
    "huge id": (json.dumps([one(image_id=10**30)]), "image_id 1000.* is not in"),
    "huge category": (json.dumps([one(category_id=2**63)]), "category_id 9223372036854775808"),
    "float of an id": (json.dumps([one(image_id=7.5)]), "image_id 7.5 is not in"),
    "id of null": (json.dumps([one(image_id=None)]), "detection 0 has no 'image_id'"),
    "NaN": (json.dumps([one(score=float("nan"))]), "score of detection 0 .* is NaN"),
    "text for a number": (json.dumps([one(score="0.5")]), "'score' is '0.5', not a number"),
    "huge box": (json.dumps([one(bbox=[0, 0, 10**400, 1])]), "'bbox' is 1000.* too large"),
    "key twice": (json.dumps([one()]).replace('"score"', '"score": 1, "score"'), "'score' twice"),
    "id twice": (
        json.dumps([one()]).replace('"bbox"', '"image_id": 3, "bbox"'),
        "'image_id' twice",
    ),
    "a number": ("7", "not COCO detections"),
    "a text": ('"x"', "not COCO detections"),
    "numbers": ("[1, 2]", "detection 0 has no"),
    "cut off": (json.dumps([one()])[:-3], "not valid JSON"),
    "nothing": ("", "not valid JSON"),
    "zeros": ("\0" * 100, "JSON"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_one_line(tmp_path, name):
    text, message = HOSTILE[name]
    if message is None:
        read(tmp_path, truth(), text=text)
        return
    with pytest.raises(MetricError, match=message) as error:
        read(tmp_path, truth(), text=text)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_what_is_no_file_is_refused(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(MetricError, match=r"pipe\.json: is a named pipe"):
        read_detections(tmp_path / "pipe.json", truth())


def test_a_file_name_that_is_no_text(tmp_path):
    """Predictions name it as a text, the data set by its bytes."""
    found, _ = read(
        tmp_path, truth(files=("a.png", "\udcff.png", "c.png")), one(image_id="\ufffd.png")
    )
    assert found.image_index.tolist() == [1]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_the_text_in_parts_is_that_of_the_whole(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of three detections."""
    monkeypatch.setattr(detection_files, "_PART", 3)
    numbers = np.arange(count)
    boxes = np.stack([numbers, numbers, numbers + 4.5, numbers + 2], axis=1).astype(float)
    found = Detections(numbers % 3, boxes, numbers / 8, numbers % 2)
    text = "".join(detection_files.coco_text(found, truth()))
    assert text == json.dumps(to_coco(found, truth()))
