"""Reading COCO files: what is accepted, and what is refused with one line that names it."""

import gzip
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfla.data import load_data_spec, load_index
from rfla.data.formats import coco_file
from rfla.errors import MetricError
from rfla.metrics import (
    Detections,
    GroundTruth,
    evaluate_boxes,
    ground_truth,
    read_detections,
    read_ground_truth,
)
from rfla.metrics.detection_files import to_coco


def truths(**more):
    base = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 3, "file_name": "b.png"}],
        "categories": [{"id": 40, "name": "ship"}, {"id": 2, "name": "car"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 2,
                "bbox": [0.1, 0, 10.2, 10],
                "area": 90,
                "iscrowd": 0,
            },
            {"id": 2, "image_id": 3, "category_id": 40, "bbox": [5, 5, 6, 6], "ignore": 1},
        ],
    }
    return base | more


def one(**more):
    return [{"image_id": 7, "category_id": 2, "bbox": [0, 0, 10, 10], "score": 0.5} | more]


def test_ground_truth_of_a_dict():
    gt = read_ground_truth(truths())
    assert (gt.image_ids, gt.names, gt.category_ids, gt.files) == (
        (7, 3),
        ("ship", "car"),
        (40, 2),
        ("a.png", "b.png"),
    )
    np.testing.assert_array_equal(gt.labels, [1, 0])
    np.testing.assert_array_equal(gt.area, [90, 36])
    np.testing.assert_array_equal(gt.ignore, [False, True])
    np.testing.assert_array_equal(gt.sides[0], [10.2, 10])  # exactly as in the file
    assert read_ground_truth(gt) is gt


def test_a_file_is_the_same_truth_as_the_index_of_its_data_set(coco):
    """Evaluation by path and `val` on the data set judge the same numbers."""
    root = coco([[(0.1, 1000.7, 10.2, 3.3, 7, {"area": 30, "iscrowd": 1})], [(5, 5, 6, 6, 3)]])
    of_file = read_ground_truth(root / "annotations/train.json")
    of_index = ground_truth(load_index(load_data_spec(root), "train"))
    for name in ("boxes", "sides", "labels", "area", "ignore", "crowd", "image_index"):
        np.testing.assert_array_equal(getattr(of_file, name), getattr(of_index, name))
    for name in ("image_ids", "names", "category_ids", "files"):
        assert getattr(of_file, name) == getattr(of_index, name)


def test_boxes_are_made_of_masks_and_ids_are_read_as_other_tools_write_them():
    annotations = [
        {"image_id": 7.0, "category_id": "2", "segmentation": [[1, 2, 5, 2, 5, 8]]},
        {"image_id": "3", "category_id": 40, "bbox": [5, 5, 6, 6]},
    ]
    gt = read_ground_truth(truths(annotations=annotations))
    assert gt.boxes.tolist() == [[1, 2, 5, 8], [5, 5, 11, 11]] and gt.labels.tolist() == [1, 0]


def test_files_plain_and_packed_and_back(tmp_path):
    gt = read_ground_truth(truths())
    dets = read_detections(one(), gt)
    (tmp_path / "dt.json").write_text(json.dumps(to_coco(dets, gt)))
    (tmp_path / "gt.json.gz").write_bytes(gzip.compress(json.dumps(truths()).encode()))
    again = read_detections(tmp_path / "dt.json", read_ground_truth(str(tmp_path / "gt.json.gz")))
    np.testing.assert_array_equal(again.boxes, dets.boxes)
    assert to_coco(again, gt) == one(bbox=[0.0, 0.0, 10.0, 10.0])


@pytest.mark.parametrize("ids", [(7, "7"), ("7", 7), ("a.png", "a.png")])
def test_image_ids_as_strings(ids):
    """Strings are accepted on either side; "7" and 7 are the same image."""
    in_truth, in_detection = ids
    gt = {"images": [{"id": in_truth}], "categories": [{"id": 2}], "annotations": []}
    assert read_detections(
        one(image_id=in_detection), read_ground_truth(gt)
    ).image_index.tolist() == [0]


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (one(score=math.nan), r"score of detection 0 \(image 7\) is NaN"),
        (one() + one(score=math.inf), r"score of detection 1 \(image 7\) is infinite"),
        (one(score=None), "detection 0 has no 'score'"),
        (one(score="0.5"), "detection 0: 'score' is '0.5', not a number"),
        (one(score=10**400), "detection 0: 'score' is 1000.*, which is too large"),
        (one(score=[0.5]), r"detection 0: 'score' is \[0.5\], not a number"),
        (one(score=True) + one(score="x"), "detection 0: 'score' is True"),
        (
            one() + one(image_id=8),
            "detection 1: image_id 8 is not in the ground truth, which has 3, 7",
        ),
        (
            one(category_id=1),
            "detection 0: category_id 1 is not in the ground truth, which has 2, 40",
        ),
        (one(bbox=[0, 0, -1, 4]), "detection 0: bbox .* negative side"),
        (one(bbox=[0, 0, math.inf, 4]), "detection 0: bbox .* not finite"),
        (one(bbox=[0, 0, 4]), "detection 0: bbox .* is not"),
        (one(bbox=[0, 0, 4, "4"]), "detection 0: 'bbox' is '4', not a number"),
        (one(bbox=[0, 0, 4, None]), "detection 0 has no 'bbox'"),
        (one(bbox=[[0, 0], [4, 4]]), "detection 0: bbox .* is not"),
        (one(bbox=7), "detection 0: bbox 7 is not"),
        (one(bbox={"x": 1}), "detection 0: bbox .* is not"),
        (one() + one(bbox=[0, 0, 5e9, 4]), "detection 1: bbox .* farther than 1e9 px"),
        (one(bbox=[0, 0, 10**30, 4]), "detection 0: bbox .* farther than 1e9 px"),
        (one(image_id=[7]), r"detection 0: image_id \[7\] is not in"),
        (one(image_id={}), r"detection 0: image_id \{\} is not in"),
        (one(category_id=math.nan), "detection 0: category_id nan is not in"),
        ([None], "detection 0 has no 'score'"),
        (["ab"], "detection 0 has no 'score'"),
        (one(score="high"), "detection 0: 'score' is 'high', not a number"),
        ([{"image_id": 7, "category_id": 2, "bbox": [0, 0, 1, 1]}], "detection 0 has no 'score'"),
        ([[1, 2, 3]], "detection 0 has no"),
        ({"images": []}, "not COCO detections"),
    ],
)
def test_wrong_detections_are_named_in_one_line(results, message):
    with pytest.raises(MetricError, match=message) as error:
        read_detections(results, read_ground_truth(truths()))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"annotations": []}, "not a COCO detection file: no list 'images'"),
        (truths(images=[{"id": 7}, {"id": 7}]), "image id 7 is used twice"),
        (
            truths(images=[{"id": [7]}]),
            r"images\[0\]: id must be a whole number or a text, not \[7\]",
        ),
        (truths(images=[3]), r"images\[0\]: expected object, got int"),
        (truths(categories=7), "categories: expected array, got int"),
        (truths(categories=[2]), r"categories\[0\]: expected object, got int"),
        (truths(annotations=None), "no list 'annotations'"),
        (truths(annotations=[5]), r"annotations\[0\]: expected object, got int"),
        (
            truths(
                annotations=[{"image_id": 7, "category_id": 2, "bbox": [0, 0, 1, 1], "area": "x"}]
            ),
            "area 'x' is not a finite number",
        ),
        (
            truths(
                annotations=[
                    {"image_id": 7, "category_id": 2, "bbox": [0, 0, 1, 1], "area": math.nan}
                ]
            ),
            r"annotations\[0\]: area nan is not a finite number",
        ),
        (truths(images=[{"id": 7}]), r"annotations\[1\] belongs to image 3, which is not listed"),
        (
            truths(annotations=[{"image_id": 7, "category_id": 2}]),
            r"annotations\[0\]: bbox None is not four finite numbers",
        ),
        (
            truths(categories=[{"name": "ship"}]),
            r"categories\[0\]: id must be a whole number, not None",
        ),
        (
            truths(categories=[{"id": "ship"}]),
            "id must be a whole number, not 'ship'",
        ),
        (truths(categories=[{"id": 2}, {"id": 2}]), "category id 2 is used twice"),
    ],
)
def test_wrong_ground_truth_is_named_in_one_line(data, message):
    with pytest.raises(MetricError, match=message) as error:
        read_ground_truth(data)
    assert "\n" not in str(error.value)


def test_wrong_files_are_named_in_one_line(tmp_path):
    (tmp_path / "broken.json").write_text("[{]")
    (tmp_path / "broken.json.gz").write_bytes(b"no gzip")
    packed = bytearray(gzip.compress(json.dumps(truths()).encode()))
    packed[30] ^= 255
    (tmp_path / "bent.json.gz").write_bytes(packed)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "cut.json").write_text(json.dumps(one())[:-9])
    (tmp_path / "latin.json").write_bytes(b'[{"image_id": "\xe4"}]')
    (tmp_path / "long.json").write_text("[" + "9" * 5000 + "]")
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "twice.json").write_text(
        '[{"image_id": 7, "category_id": 2, "bbox": [0, 0, 1, 1], "score": 0.1, "score": 1}]'
    )
    (tmp_path / "folder.json").mkdir()
    messages = {
        "none.json": "no such file",
        "broken.json.gz": "cannot be read",
        "bent.json.gz": "cannot be read",
        "folder.json": "is a directory",
        "broken.json": "not valid JSON",
        "deep.json": "not usable JSON .nested too deep",
        "cut.json": "not valid JSON",
        "latin.json": "not usable JSON",
        "long.json": "not usable JSON",
        "empty.json": "not valid JSON",
        "twice.json": "an object has the key 'score' twice",
    }
    gt = read_ground_truth(truths())
    for name, message in messages.items():
        with pytest.raises(MetricError, match=f"{name}(:1)?: {message}") as error:
            read_detections(tmp_path / name, gt)
        assert "\n" not in str(error.value)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = (
    "image_id",
    "category_id",
    "bbox",
    "score",
    "area",
    "iscrowd",
    "ignore",
    "id",
    "file_name",
    "name",
)


@settings(max_examples=150, deadline=None)
@given(
    entry=st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=4),
    part=st.sampled_from([*truths(), "detections"]),
)
def test_any_value_is_used_or_refused_in_one_line(entry, part):
    """Whatever JSON holds anywhere, only a MetricError comes of it, and never a false figure."""
    content, found = truths(), one() + one()
    (found if part == "detections" else content[part])[-1].update(entry)
    try:
        metrics = evaluate_boxes(content, found)
    except MetricError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 400
    else:
        assert all(value == -1 or 0 <= value <= 1 for value in metrics.figures.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Detections([0], [[0, 0, 1, 1]], [math.nan], [0]), "the score of number 0 is NaN"),
        (
            lambda: Detections([0], [[0, 0, 1, 1]], [-math.inf], [0]),
            "the score of number 0 is infinite",
        ),
        (lambda: GroundTruth((1, 1), [], [], [], names=("a",)), "an image id is given twice"),
        (lambda: arrays(area=[math.inf]), "the area of number 0 is not finite"),
        (
            lambda: Detections([0], [[0, 0, math.nan, 1]], [1], [0]),
            "the box of number 0 is not finite",
        ),
        (lambda: Detections([0], [[5, 0, 1, 1]], [1], [0]), "negative width"),
        (lambda: Detections([0.5], [[0, 0, 1, 1]], [1], [0]), "integers are needed"),
        (lambda: Detections([0, 1], [[0, 0, 1, 1]], [1], [0]), "image_index: 2 values for 1 boxes"),
        (
            lambda: evaluate_boxes(arrays(), Detections([3], [[0, 0, 1, 1]], [1], [0])),
            "image_index 3 of number 0",
        ),
        (
            lambda: evaluate_boxes(arrays(), Detections([0], [[0, 0, 1, 1]], [1], [-1])),
            "label -1 of number 0",
        ),
        (lambda: arrays(names=()), "label 0"),
        (lambda: GroundTruth((1,), [], [], [], category_ids=(1,)), "1 category ids for 0 names"),
        (
            lambda: evaluate_boxes(GroundTruth((1,), [], [], []), Detections([], [], [], [])),
            "no class is named",
        ),
    ],
)
def test_wrong_arrays_are_named_in_one_line(make, message):
    with pytest.raises(MetricError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def arrays(**more):
    return GroundTruth((1,), [0], [[0, 0, 1, 1]], [0], **({"names": ("a",)} | more))


def test_no_detections_no_truth_and_no_images():
    gt = read_ground_truth(truths())
    nothing = Detections([], [], [], [])
    missed = evaluate_boxes(gt, [])
    assert (missed.ap, missed.ap_vt, missed.ar_1500, missed.olrp, missed.olrp_loc) == (
        0,
        0,
        0,
        1,
        -1,
    )
    empty = read_ground_truth(truths(annotations=[]))
    assert set(evaluate_boxes(empty, one()).figures.values()) == {-1.0}
    assert set(
        evaluate_boxes(GroundTruth((), [], [], [], names=("a",)), nothing).figures.values()
    ) == {-1.0}


def plain_and_other(tmp_path, content):
    """The same truth read from a file of numbers alone, and from one that is no such file."""
    plain, other = tmp_path / "plain.json", tmp_path / "other.json"
    plain.write_text(json.dumps(content))
    rows = [row | {"iscrowd": bool(row.get("iscrowd", 0))} for row in content["annotations"]]
    other.write_text(json.dumps(content | {"annotations": rows}))
    coco_file.load_plain(plain)
    with pytest.raises(ValueError):
        coco_file.load_plain(other)
    return read_ground_truth(plain), read_ground_truth(other)


def test_numbers_alone_are_read_as_anything_else(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"id": n, "image_id": 7.0 if n % 3 else 3, "category_id": 40 if n % 2 else 2}
        | {"bbox": rng.uniform(0, 99, 4).tolist(), "iscrowd": n % 5 == 0, "ignore": n % 4 // 3}
        | ({"area": 1e-7 * n} if n % 2 else {})
        for n in range(50)
    ]
    rows = [row | {"iscrowd": int(row["iscrowd"])} for row in rows]
    plain, other = plain_and_other(tmp_path, truths(annotations=rows))
    for name in ("boxes", "sides", "labels", "area", "ignore", "crowd", "image_index"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(other, name))
    assert plain.image_ids == other.image_ids and plain.category_ids == other.category_ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 8}, "annotations.0. belongs to image 8, which is not listed"),
        ({"category_id": 9}, "unknown category id 9; ids are 2, 40"),
        ({"bbox": [0, 0, -3, 4]}, r"bbox \[0, 0, -3, 4\] is of a negative side"),
        ({"bbox": [0, 0, 3, 1e10]}, r"bbox \[0, 0, 3, 10000000000.0\] is farther"),
        ({"bbox": [0, 0, 3, 1e16]}, r"bbox \[0, 0, 3, 1e\+16\] is not four finite numbers"),
        ({"area": 1e16}, r"area 1e\+16 is not a finite number"),
        ({"image_id": 7.5}, "image_id must be a whole number or a text, not 7.5"),
        ({"category_id": 2**60}, "unknown category id 1152921504606846976"),
    ],
)
def test_numbers_are_quoted_as_the_file_writes_them(tmp_path, change, message):
    row = {"id": 1, "image_id": 7, "category_id": 2, "bbox": [0, 0, 10, 10]} | change
    path = tmp_path / "gt.json"
    path.write_text(json.dumps(truths(annotations=[row])))
    with pytest.raises(MetricError, match=message):
        read_ground_truth(path)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('"images"', '"images": [], "images"', "images"),
        ('"annotations"', '"annotations": [], "annotations"', "annotations"),
        ('"annotations"', '"annotations" : [], "annotations"', "annotations"),
        ('"bbox"', '"bbox": [1, 2, 3, 4], "bbox"', "bbox"),
        ('"bbox"', '"bbox" : [1, 2, 3, 4], "bbox"', "bbox"),
    ],
)
def test_a_key_given_twice_is_refused(tmp_path, old, new, key):
    row = {"id": 1, "image_id": 7, "category_id": 2, "bbox": [0, 0, 10, 10]}
    text = json.dumps(truths(annotations=[row]))
    (tmp_path / "gt.json").write_text(text.replace(old, new))
    with pytest.raises(MetricError, match=f"has the key '{key}' twice"):
        read_ground_truth(tmp_path / "gt.json")
