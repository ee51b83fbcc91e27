"""Files -> flat arrays: the rules of training and evaluation, and the faults of real files."""

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rfla.data import load_data_spec, load_index
from rfla.data.annotations import objects_per_image
from rfla.errors import DataError


def test_coco_boxes_in_image_order(coco):
    root = coco(
        [
            [(1, 2, 3, 4, 7)],
            [],
            [(5, 6, 7, 8, 3), (0, 0, 2, 2, 7, {"iscrowd": 1}), (9, 9, 4, 4, 3, {"ignore": 1})],
        ]
    )
    index = load_index(load_data_spec(root), "train")
    assert index.names == ("ship", "car") and index.category_ids == (3, 7)
    assert index.box_start.tolist() == [0, 1, 1, 4]
    assert index.boxes.tolist() == [[1, 2, 4, 6], [5, 6, 12, 14], [0, 0, 2, 2], [9, 9, 13, 13]]
    assert index.labels.tolist() == [1, 0, 1, 0]
    assert index.crowd.tolist() == [False, False, True, False] and index.ignore.tolist() == [
        False,
        False,
        False,
        True,
    ]
    assert index.area.tolist() == [12, 56, 4, 16]  # no stated area: width x height
    assert index.image_hw.tolist() == [[40, 60]] * 3 and index.image_ids.tolist() == [1, 2, 3]
    assert (index.boxes.dtype, index.labels.dtype, index.area.dtype) == (
        np.float32,
        np.int64,
        np.float64,
    )


def test_evaluation_has_the_numbers_of_the_file_to_the_last_bit(coco):
    rows = [(0.1, 1000.7, 10.2, 3.3, 3)]
    assert 1000.7 + 3.3 - 1000.7 != 3.3
    index = load_index(load_data_spec(coco([[], rows, rows])), "train")
    assert index.stated.tolist() == [[0.1, 1000.7, 10.2, 3.3]] * 2
    assert index.take(np.array([1])).stated.tolist() == [[0.1, 1000.7, 10.2, 3.3]]
    assert index.area.tolist() == [10.2 * 3.3] * 2
    assert load_index(load_data_spec(coco([rows])), "train", for_training=True).stated is None


def test_training_drops_what_evaluation_keeps(coco):
    rows = [
        *[
            (10, 10, 0, 5, 3),
            (10, 10, 0.9, 5, 3),
            (10, 10, 4, 4, 3, {"area": 0}),
            (-3, 5, 10, 10, 3),
        ],
        *[(10, 10, 5, 5, 3), (10, 10, 5, 5, 3), (70, 10, 5, 5, 3)],
    ]
    root = coco([rows])
    for_evaluation = load_index(load_data_spec(root), "train")
    assert len(for_evaluation.boxes) == 7 and for_evaluation.boxes[3].tolist() == [-3, 5, 7, 15]
    for_training = load_index(load_data_spec(root), "train", for_training=True)
    assert for_training.boxes.tolist() == [[0, 5, 7, 15], [10, 10, 15, 15]]
    dropped = {what.split(" dropped")[0]: count for what, count in for_training.counts.items()}
    assert dropped == {
        "boxes clipped to the image": 2,
        "boxes under 1 px or without area": 4,
        "repeated boxes": 1,
    }


def test_an_object_is_no_repeated_region(coco):
    """A region to ignore with the same box as an object does not stand in for it."""
    rows = [(10, 10, 5, 5, 3, {"ignore": 1}), (10, 10, 5, 5, 3), (10, 10, 5, 5, 3)]
    index = load_index(load_data_spec(coco([rows])), "train", for_training=True)
    assert index.ignore.tolist() == [True, False]


def test_one_box_of_two_classes_is_one_object_of_a_single_class(coco):
    root = coco([[(10, 10, 5, 5, 3), (10, 10, 5, 5, 7)]])
    counts = [
        len(load_index(load_data_spec(root), "train", for_training=True, single_cls=single).boxes)
        for single in (False, True)
    ]
    assert counts == [2, 1]


def test_what_is_no_box_is_dropped_counted_and_named_once(coco, caplog: pytest.LogCaptureFixture):
    root = coco(
        [[(float("nan"), 1, 2, 3, 3), (5, 5, -2, 3, 3), (1, 1, 3, 3, 3)], [(5, 5, 1e400, 3, 3)]]
    )
    path = root / "annotations/train.json"
    content = json.loads(path.read_text())
    content["annotations"][2]["bbox"] = [1, 1]  # not four numbers
    path.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING, "rfla.data"):
        index = load_index(load_data_spec(root), "train")
    assert len(index.boxes) == 0 and len(index) == 2
    assert index.counts == {
        "boxes that are not four finite numbers dropped": 3,
        "boxes of negative size dropped": 1,
    }
    assert len(caplog.records) == 1 and "train_0.png" in caplog.text


def test_yolo_rows(yolo):
    path = yolo(
        [
            "0 0.5 0.5 0.1 0.2\n1 0.25 0.25 0.1 0.1\n",
            "",
            None,
            "1 0.1 0.1 0.3 0.1 0.3 0.5 0.1 0.5\n",
        ]
    )
    index = load_index(load_data_spec(path), "train")
    assert index.box_start.tolist() == [0, 2, 2, 2, 3]
    np.testing.assert_allclose(index.boxes[0], [27, 16, 33, 24], atol=1e-5)
    np.testing.assert_allclose(index.boxes[2], [6, 4, 18, 20], atol=1e-5)  # a polygon
    assert index.labels.tolist() == [0, 1, 1] and index.image_hw.tolist() == [[40, 60]] * 4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("2 .5 .5 .1 .1", r"0\.txt:2: class 2 is none of 0 to 1"),
        ("0.5 .5 .5 .1 .1", r"0\.txt:2: class must be a whole number, not '0\.5'"),
        ("0 .5 .5 .1", r"0\.txt:2: 4 columns"),
        ("0 .5 .5 .1 x", r"0\.txt:2: 'x' is not a number"),
        ("0 30 20 5 5", r"0\.txt:2: 30 is not between 0 and 1"),
    ],
)
def test_bad_yolo_rows_are_refused_with_file_and_line(yolo, row: str, message: str):
    path = yolo(["0 .5 .5 .1 .1\n" + row + "\n"])
    with pytest.raises(DataError, match=message):
        load_index(load_data_spec(path), "train")


def test_a_yolo_row_with_nan_and_one_of_zero_width(yolo):
    path = yolo(["0 nan .5 .1 .1\n0 .5 .5 0 .1\n0 .5 .5 .1 .1\n"])
    assert len(load_index(load_data_spec(path), "train").boxes) == 2
    assert len(load_index(load_data_spec(path), "train", for_training=True).boxes) == 1


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.text(alphabet="0123456789.-einfa \t,", max_size=30), max_size=4))
def test_yolo_text_never_crashes(yolo, rows: list[str]):
    path = yolo(["\n".join(rows)])
    try:
        index = load_index(load_data_spec(path), "train", for_training=True)
    except DataError as error:
        assert "0.txt:" in str(error)
    else:
        assert np.isfinite(index.boxes).all()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers(-5, 10) | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["id", "bbox", "image_id"]), inner)
        ),
        max_leaves=6,
    ),
    st.sampled_from(
        [
            "bbox",
            "area",
            "category_id",
            "image_id",
            "iscrowd",
            "id",
            "images",
            "annotations",
            "categories",
        ]
    ),
)
def test_coco_values_never_crash(coco, value, key: str):
    root = coco([[(1, 2, 3, 4, 3)]])
    path = root / "annotations/train.json"
    content = json.loads(path.read_text())
    if key in content:
        content[key] = value
    else:
        content["annotations"][0][key] = value
    path.write_text(json.dumps(content))
    try:
        index = load_index(load_data_spec(root), "train", for_training=True)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(index.boxes).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["annotations"][0].update(category_id=99),
            r"annotations\[0\]: unknown category id 99; ids are 3, 7",
        ),
        (
            lambda c: c["annotations"][0].update(image_id=99),
            "belongs to image 99, which is not listed",
        ),
        (lambda c: c["images"].append(c["images"][0]), "image id 1 is used twice"),
        (lambda c: c.pop("categories"), "no list 'categories'"),
        (lambda c: c["images"][0].pop("file_name"), r"images\[0\]: file_name must be a text"),
    ],
)
def test_broken_coco_files_are_refused_in_one_line(coco, change, message: str):
    root = coco([[(1, 2, 3, 4, 3)]])
    path = root / "annotations/train.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        load_index(load_data_spec(root), "train")


def test_truncated_json_names_the_line(coco):
    root = coco([[]])
    (root / "annotations/train.json").write_text('{"images": [\n')
    with pytest.raises(DataError, match=r"train\.json:2: not valid JSON"):
        load_index(load_data_spec(root), "train")


def test_names_of_the_yaml_decide_the_order(coco):
    root = coco([[(1, 2, 3, 4, 3), (1, 2, 3, 4, 7)]])
    (root / "data.yaml").write_text(
        "train: annotations/train.json\nimages: images\nnames: [car, boat, ship]\n"
    )
    index = load_index(load_data_spec(root), "train")
    assert index.labels.tolist() == [2, 0] and index.category_ids == (7, 8, 3)
    (root / "data.yaml").write_text("train: annotations/train.json\nnames: [car, shipp]\n")
    with pytest.raises(
        DataError, match=r"category 'ship' is not among names.*did you mean 'shipp'"
    ):
        load_index(load_data_spec(root), "train")


def test_missing_images_are_counted_and_all_missing_is_an_error(coco):
    root = coco([[(1, 2, 3, 4, 3)], [(1, 2, 3, 4, 7)]])
    (root / "images/train_0.png").unlink()
    index = load_index(load_data_spec(root), "train")
    assert len(index) == 1 and index.labels.tolist() == [1]
    assert index.counts == {"images without a file left out": 1}
    (root / "images/train_1.png").unlink()
    with pytest.raises(DataError, match="does not exist"):
        load_index(load_data_spec(root), "train")


def test_annotations_alone_are_enough_where_no_image_is_needed(coco):
    root = coco([[(1, 1, 3, 3, 3)], []])
    (root / "data.yaml").write_text("images: nowhere\ntrain: annotations/train.json\n")
    with pytest.raises(DataError, match="nowhere does not exist"):
        load_index(load_data_spec(root), "train")
    index = load_index(load_data_spec(root), "train", need_images=False)
    assert (len(index), len(index.boxes), index.counts) == (2, 1, {})


def test_joined_splits_keep_ids_or_renumber(coco):
    root = coco([[(1, 2, 3, 4, 3)]], first=1)
    coco([[(5, 6, 7, 8, 7)]], split="val", first=100)
    assert load_index(load_data_spec(root), "trainval").image_ids.tolist() == [1, 100]
    coco([[(5, 6, 7, 8, 7)]], split="val", first=1)
    assert load_index(load_data_spec(root), "trainval").image_ids.tolist() == [1, 2]


def test_fraction_and_single_class(coco):
    root = coco([[(1, 2, 3, 4, 7)] for _ in range(10)])
    spec = load_data_spec(root)
    assert load_index(spec, "train", fraction=0.3).image_ids.tolist() == [
        3,
        5,
        7,
    ]  # drawn, and the same each time
    assert len(load_index(spec, "train", fraction=4)) == 4
    single = load_index(spec, "train", single_cls=True)
    assert single.names == ("object",) and not single.labels.any()
    with pytest.raises(DataError, match="fraction=0 must be above 0"):
        load_index(spec, "train", fraction=0)


def test_odd_names_and_links(coco):
    root = coco([[(1, 2, 3, 4, 3)], [(1, 2, 3, 4, 3)]])
    (root / "images/train_0.png").rename(root / "images/hafen größe 東京 1.png")
    (root / "images/train_1.png").rename(root / "elsewhere.png")
    (root / "images/train_1.png").symlink_to(root / "elsewhere.png")
    path = root / "annotations/train.json"
    path.write_text(path.read_text().replace("train_0.png", "hafen größe 東京 1.png"))
    assert len(load_index(load_data_spec(root), "train")) == 2


def test_missing_data_says_how_to_obtain_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RFLA_DATASETS", str(tmp_path))
    with pytest.raises(DataError, match=r"(?s)data=aitod: .* does not exist.*AI-TOD.*rfla convert"):
        load_index(load_data_spec("aitod"), "train")


@pytest.mark.slow
def test_the_size_of_aitod(tmp_path: Path):
    """28,036 images and 752,754 boxes."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    images = [{"id": n, "file_name": f"{n}.png", "width": 800, "height": 800} for n in range(28036)]
    for entry in images:
        (tmp_path / "images" / entry["file_name"]).touch()
    corners, owners = (
        rng.uniform(0, 780, (752_754, 2)).round(2).tolist(),
        rng.integers(0, 28036, 752_754).tolist(),
    )
    annotations = [
        {
            "id": n,
            "image_id": owner,
            "bbox": [x, y, 12.5, 9.0],
            "category_id": n % 8 + 1,
            "area": 112.5,
            "iscrowd": 0,
        }
        for n, ((x, y), owner) in enumerate(zip(corners, owners, strict=True))
    ]
    categories = [{"id": n + 1, "name": str(n)} for n in range(8)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "annotations/train.json").write_text(json.dumps(content))
    index = load_index(load_data_spec(tmp_path), "train", for_training=True)
    assert len(index) == 28036 and len(index.boxes) == 752_754


def test_yolo_directories_may_be_links(yolo, tmp_path: Path):
    path = yolo(["0 0.5 0.5 0.1 0.2", "1 0.25 0.5 0.1 0.2"])
    for kind in ("images", "labels"):
        (path.parent / kind / "train").rename(tmp_path / kind)
        (path.parent / kind / "train").mkdir()
        (path.parent / kind / "train" / "linked").symlink_to(tmp_path / kind)
    assert load_index(load_data_spec(path), "train").labels.tolist() == [0, 1]


def test_a_side_of_one_px_survives_the_rounding_of_its_file(yolo, coco):
    """1 / 60 with six digits cut is 0.99996 px; 3.3 + 1 - 3.3 is 0.9999998 in float32."""
    path = yolo(["0 .5 .5 0.016666 0.025\n0 .25 .25 0.016 0.025\n"])
    spec = load_data_spec(path)
    assert len(load_index(spec, "train", for_training=True).boxes) == 1
    rows = [(x / 10, 3.3, 1.0, 1.0, 3) for x in range(300)] + [(5.0, 20.0, 0.99, 5.0, 3)]
    assert len(load_index(load_data_spec(coco([rows])), "train", for_training=True).boxes) == 300


@pytest.mark.parametrize(("share", "refused"), [(1.5, False), (2.02, True)])
def test_training_and_conversion_have_one_limit_for_a_share(yolo, share: float, refused: bool):
    from rfla.data.formats import FORMATS

    path = yolo([f"0 {share} .5 .1 .1\n"])
    kind = FORMATS["yolo"]
    part = kind.find(path)["train"]
    for read in (
        lambda: load_index(load_data_spec(path), "train"),
        lambda: kind.read(part, kind.classes([part])),
    ):
        if refused:
            with pytest.raises(DataError, match=r"2\.02 is not between 0 and 1"):
                read()
        else:
            read()


def test_objects_per_image_leaves_out_regions_and_crowds(tmp_path: Path) -> None:
    box = {"category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}
    flags = [{}, {"iscrowd": 1}, {"ignore": 1}]
    entries = [box | {"id": n, "image_id": 1} | flag for n, flag in enumerate(flags, 1)]
    entries.append(box | {"id": 9, "image_id": 3})
    images = [{"id": n, "file_name": f"{n}.png", "width": 32, "height": 32} for n in (1, 2, 3)]
    content = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/train.json").write_text(json.dumps(content))
    (tmp_path / "images").mkdir()
    for entry in images:
        cv2.imwrite(str(tmp_path / "images" / entry["file_name"]), np.zeros((32, 32, 3), np.uint8))
    index = load_index(load_data_spec(tmp_path), "train")
    assert np.diff(index.box_start).tolist() == [3, 0, 1]
    assert objects_per_image(index).tolist() == [1, 0, 1]
