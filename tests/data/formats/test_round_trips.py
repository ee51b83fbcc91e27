"""Written and read again, records are the same wherever the format can hold them."""

import json
from csv import reader

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rfla.data.formats import (
    FORMATS,
    coco,
    coco_write,
    csv,
    cvat,
    dota,
    soda,
    tinyperson,
    visdrone,
    voc,
    xview,
    yolo,
)
from rfla.data.images import write_image
from rfla.data.record import NO_CLASS, Classes, Part, make_record
from rfla.errors import DataError

NAMES = ("car", "air plane", "ü")
CLASSES = Classes(NAMES, (3, 7, 9))
WIDTH, HEIGHT = 640, 480

number = st.floats(0, 400, allow_nan=False).map(lambda value: round(value, 3))
box = st.tuples(number, number, number, number).map(
    lambda b: (b[0], b[1], b[0] + b[2] + 0.5, b[1] + b[3] + 0.5)
)
flag = st.integers(0, 1)


@st.composite
def records(draw, region=True):
    """Up to six boxes with labels and flags; ids are unique."""
    boxes = draw(st.lists(box, max_size=6))
    count = len(boxes)
    labels = draw(
        st.lists(st.integers(NO_CLASS if region else 0, 2), min_size=count, max_size=count)
    )
    flags = [draw(st.lists(flag, min_size=count, max_size=count)) for _ in range(4)]
    ignore = [bool(f) or label == NO_CLASS for f, label in zip(flags[0], labels, strict=True)]
    columns = {
        name: np.array(flags[1 + i], np.int64) for i, name in enumerate(("truncation", "occlusion"))
    }
    record = make_record(
        "späte Bilder/a b.png",
        "test",
        boxes,
        labels,
        ignore=ignore,
        crowd=ignore,
        ids=draw(st.lists(st.integers(0, 10**12), min_size=count, max_size=count, unique=True)),
        size=(WIDTH, HEIGHT),
        attributes=columns | {"difficult": np.array(ignore, np.int64)},
    )
    record.image_id = draw(st.integers(0, 10**12))
    return record


def same(left, right, columns=(), ids=False):
    assert left.boxes.shape == right.boxes.shape
    assert np.allclose(left.boxes, right.boxes, rtol=0, atol=1e-9)
    for name in ("labels", "ignore", "crowd", *(["ids"] if ids else [])):
        assert getattr(left, name).tolist() == getattr(right, name).tolist(), name
    for name in columns:
        got = right.attributes.get(name, np.zeros(len(left), np.int64))
        assert left.attributes[name].tolist() == got.tolist(), name


quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(record=records())
@quick
def test_coco_keeps_everything(tmp_path, record):
    path = tmp_path / "train.json"
    assert not coco_write.write(path, [record], CLASSES)
    classes = coco.classes_of([Part((path,), ())])
    (back,) = coco.read(Part((path,), ()), classes).records()
    assert classes.names == list(NAMES) and classes.ids == [3, 7, 9]
    same(record, back, ("truncation", "occlusion", "difficult"), ids=True)
    assert back.image_id == record.image_id and back.file_name == record.file_name
    assert (back.width, back.height) == (WIDTH, HEIGHT)
    again = tmp_path / "again.json"
    coco_write.write(again, [back], classes)
    assert again.read_bytes() == path.read_bytes()  # a second round changes no byte


@given(record=records(region=False))
@quick
def test_voc_keeps_all_but_ids(tmp_path, record):
    assert not voc.write(tmp_path, [record], CLASSES)
    back = voc.read_file(tmp_path / "a b.xml", Classes(NAMES))
    same(record, back, ("truncation", "occlusion", "difficult"))
    assert back.file_name == record.file_name


@given(record=records())
@quick
def test_cvat_keeps_objects_and_occlusion(tmp_path, record):
    path = tmp_path / "annotations" / "train.xml"
    kept = record.select(~record.ignore & (record.labels != NO_CLASS))
    lost = cvat.write(path, [record], CLASSES)
    assert sum(lost.values()) == len(record) - len(kept)
    part = cvat.find(tmp_path)["train"]
    assert cvat.classes_of([part]).names == list(NAMES)
    (back,) = cvat.read(part, Classes(NAMES)).records()
    same(kept, back)
    assert back.attributes["occlusion"].tolist() == kept.attributes["occlusion"].tolist()
    assert (back.file_name, back.width, back.height) == (record.file_name, WIDTH, HEIGHT)


@given(record=records())
@quick
def test_csv_keeps_all_but_ids_of_images(tmp_path, record):
    path = tmp_path / "train.csv"
    empty = make_record("no, boxes.png", "test", [], [], size=(5, 4))
    large = make_record(
        "c.png", "test", [(0, 0, 5, 4)], [0], ids=[10**13]
    )  # alone, half a pixel would be a share
    assert not csv.write(path, [empty, record, large], CLASSES)
    first, *others = csv.read_file(path, Classes(NAMES)).records()
    assert (len(first), first.file_name, first.width, first.height) == (0, "no, boxes.png", 5, 4)
    same(record, others[0], ("truncation", "occlusion", "difficult"), ids=True)
    assert (others[0].file_name, others[0].width, others[0].height) == (
        record.file_name,
        WIDTH,
        HEIGHT,
    )


@given(record=records(), flags=st.lists(st.integers(0, 3), min_size=6, max_size=6))
@quick
def test_tinyperson_keeps_its_flags(tmp_path, record, flags):
    """`uncertain` and `logo` boxes are ignored ones.

    They stand beside `ignore`, as the published files have them.
    """
    values = np.array(flags[: len(record)])
    record.attributes |= {"uncertain": values % 2, "logo": values // 2}
    record.ignore |= values > 0
    record.crowd = record.ignore.copy()
    path = tmp_path / "train.json"
    assert not tinyperson.write(path, [record], CLASSES)
    for entry in json.loads(path.read_text())["annotations"]:
        assert type(entry["ignore"]) is type(entry["uncertain"]) is type(entry["logo"]) is bool
    (part,) = tinyperson.find(path).values()
    (back,) = tinyperson.read(part, CLASSES).records()
    same(record, back, ("truncation", "occlusion", "difficult", "uncertain", "logo"), ids=True)
    coco_write.write(path, [back], CLASSES)  # and by way of COCO
    (back,) = coco.read(part, CLASSES).records()
    tinyperson.write(tmp_path / "again.json", [back], CLASSES)
    (again,) = tinyperson.read(Part((tmp_path / "again.json",), ()), CLASSES).records()
    same(record, again, ("uncertain", "logo"), ids=True)


@given(record=records())
@quick
def test_soda_keeps_regions_as_its_class(tmp_path, record):
    path = tmp_path / "train.json"
    assert not soda.write(path, [record], CLASSES)
    assert json.loads(path.read_text())["categories"][-1] == {"id": 10, "name": "ignore"}
    part = Part((path,), ())
    classes = soda.classes_of([part])
    assert (classes.names, classes.ids) == (list(NAMES), [3, 7, 9])
    (back,) = soda.read(part, classes).records()
    same(record, back, ("truncation", "occlusion", "difficult"), ids=True)


@given(record=records())
@quick
def test_xview_keeps_what_is_an_object(tmp_path, record):
    classes = Classes(("Bus", "Small Car", "Shed"))
    kept = record.select(~record.ignore)
    lost = xview.write(tmp_path / "val.geojson", [record], classes)
    assert lost.total() == record.ignore.sum() + (not len(kept))
    parts = xview.find(tmp_path)
    assert list(parts) == ["val"]
    back = list(xview.read(parts["val"], xview.classes_of([])).records())
    assert len(back) == (len(kept) > 0)
    for other in back:
        other.labels = np.array(
            [classes.names.index(xview.classes_of([]).names[label]) for label in other.labels]
        )
        same(kept, other, ids=True)
        assert other.file_name == record.file_name


def test_xview_has_its_own_classes(tmp_path):
    with pytest.raises(
        DataError,
        match="to=xview: class 'bus' is none of the 60 of this format; did you mean 'Bus'",
    ):
        xview.write(tmp_path / "train.geojson", [], Classes(["bus"]))


def test_visdrone_categories_follow_the_names(tmp_path):
    """A COCO file of VisDrone may number its categories from 0, VisDrone's ignored regions."""
    record = make_record("a.png", "x", [(0, 0, 5, 5), (1, 1, 2, 2)], [0, 1])
    visdrone.write(tmp_path, [record], Classes(["car", "pedestrian"], [0, 1]))
    assert (tmp_path / "a.txt").read_text() == "0,0,5,5,1,4,0,0\n1,1,1,1,1,1,0,0\n"
    with pytest.raises(
        DataError,
        match="to=visdrone: class 'ship' is none of the 10 of this format: pedestrian, people",
    ):
        visdrone.write(tmp_path / "b", [record], Classes(["ship"]))
    assert not (tmp_path / "b").exists()


@given(record=records(region=False))
@quick
def test_dota_keeps_boxes_and_difficult(tmp_path, record):
    assert not dota.write(tmp_path, [record], CLASSES)
    same(
        record,
        dota.read_file(tmp_path / "a b.txt", Classes(["car", "air-plane", "ü"])),
        ("difficult",),
    )


@given(record=records(region=False))
@quick
def test_yolo_keeps_what_is_an_object(tmp_path, record):
    lost = yolo.write(tmp_path, [record], CLASSES)
    assert lost.total() == record.ignore.sum()
    if not (tmp_path / record.file_name).exists():
        write_image(tmp_path / record.file_name, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    (back,) = yolo.read(Part((), (tmp_path,)), Classes(NAMES)).records()
    same(record.select(~record.ignore), back)
    assert back.file_name == record.file_name


@given(
    rows=st.lists(
        st.tuples(*[st.integers(0, 999)] * 4, flag, st.integers(0, 11), flag, st.integers(0, 2)),
        max_size=8,
    )
)
@quick
def test_visdrone_text_comes_back_to_the_letter(tmp_path, rows):
    """Regions and "others" always have score 0, as in the published files; so they are written."""
    lines = [(*row[:4], row[4] if 1 <= row[5] <= 10 else 0, *row[5:]) for row in rows]
    text = "".join(",".join(map(str, line)) + "\n" for line in lines)
    (tmp_path / "a.txt").write_text(text)
    classes = visdrone.classes_of([])
    record = visdrone.read_file(tmp_path / "a.txt", classes)
    visdrone.write(tmp_path / "out", [record], classes)
    assert (tmp_path / "out" / "a.txt").read_text() == text
    coco_write.write(tmp_path / "train.json", [record], classes)  # and by way of COCO
    (back,) = coco.read(Part((tmp_path / "train.json",), ()), classes).records()
    visdrone.write(tmp_path / "coco", [back], classes)
    assert (tmp_path / "coco" / "a.txt").read_text() == text


def test_dota_polygons_survive_coco(tmp_path):
    text = "10 5 20 0 30 20 12 25 ship 1\n1.5 1 2 1 2 2 1.5 2 plane 0\n1 1 2 1 2 2 1 2 plane 2\n"
    (tmp_path / "P1.txt").write_text(text)
    classes = Classes(dota.NAMES)
    coco_write.write(
        tmp_path / "train.json", [dota.read_file(tmp_path / "P1.txt", classes)], classes
    )
    (back,) = coco.read(Part((tmp_path / "train.json",), ()), classes).records()
    dota.write(tmp_path / "out", [back], classes)
    assert (tmp_path / "out" / "P1.txt").read_text() == text


def test_formats_that_cannot_hold_regions_say_so(tmp_path):
    record = make_record(
        "a.png",
        "x",
        [(0, 0, 5, 5), (1, 1, 2, 2)],
        [NO_CLASS, 0],
        ignore=[True, False],
        crowd=[True, False],
    )
    record.width = record.height = 10
    for write in (voc.write, dota.write, yolo.write):
        assert write(tmp_path, [record], CLASSES).total() == 1


def test_records_without_ids_are_numbered_and_areas_are_kept_where_they_can_be(tmp_path):
    first = make_record(
        "a.png",
        "x",
        [(0, 0, 4, 5), (0, 0, 2, 2)],
        [0, 1],
        attributes={"area": np.array([11.0, 400.0])},
    )
    second = make_record("b.png", "x", [(0, 0, 3, 3)], [1])
    coco_write.write(tmp_path / "a.json", [first, second], CLASSES)
    content = json.loads((tmp_path / "a.json").read_text())
    assert [image["id"] for image in content["images"]] == [1, 2]
    assert [(a["id"], a["image_id"], a["area"]) for a in content["annotations"]] == [
        (1, 1, 11),
        (2, 1, 4),
        (3, 2, 9),
    ]
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    "name", ["visdrone", "dota", "voc", "csv", "coco", "soda", "tinyperson", "xview"]
)
@given(data=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode)))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_are_read_or_refused(tmp_path, name, data):
    refuses_or_reads(tmp_path, name, data)


TOKENS = {
    "visdrone": [
        "1",
        "0",
        "-5",
        ",",
        "\n",
        "1e400",
        "nan",
        "12",
        ",,",
        " ",
        "0.5",
        "1,2,3,4,1,4,0,0",
        "٣",
        "\x00",
        "1_0",
    ],
    "dota": [
        "1 2 3 4 5 6 7 8 ship 0",
        "\n",
        "gsd:",
        "nan",
        " ",
        "x",
        "-1",
        "1e999",
        "2",
        "1_0",
        "\u2003",
    ],
    "csv": [
        "image,xmin,ymin,xmax,ymax,label\n",
        "a,1,2,3,4,b\n",
        '"',
        ",",
        "\n",
        "\r",
        "nan",
        ";",
        "\t",
        "x,y\n",
        "\x00",
        "1",
    ],
    "voc": [
        "<annotation>",
        "</annotation>",
        "<object>",
        "</object>",
        "<bndbox><xmin>1</xmin>",
        "</bndbox>",
        "<name>",
        "&lt;",
        "x",
    ],
    "coco": [
        *(
            '{"images":',
            '"annotations":',
            '"categories":',
            "[",
            "]",
            "{",
            "}",
            ",",
            '"id":1',
            '"bbox":[1,2,3,4]',
            "null",
        ),
        *(
            "1e999",
            "NaN",
            '"image_id":1',
            '"category_id":1',
            '"name":"a"',
            '"file_name":"b"',
            "true",
            '"x"',
        ),
    ],
    "xview": [
        '{"features":[',
        '{"type":"Feature","properties":{',
        '"image_id":"5.tif",',
        '"type_id":17',
        "}}",
        "]}",
        "\n",
        ",",
    ],
}


@pytest.mark.parametrize("name", sorted(TOKENS))
@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_nearly_right_files_are_read_or_refused(tmp_path, name, data):
    text = "".join(data.draw(st.lists(st.sampled_from(TOKENS[name]), max_size=14)))
    refuses_or_reads(tmp_path, name, text.encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
ENTRY_KEYS = (
    "id",
    "image_id",
    "category_id",
    "bbox",
    "area",
    "iscrowd",
    "ignore",
    "segmentation",
    "attributes",
    "corner",
)


@pytest.mark.parametrize("name", ["coco", "tinyperson", "soda"])
@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_coco_with_one_strange_value(tmp_path, name, data):
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 1, "name": "car"}],
    }
    where = data.draw(st.sampled_from(sorted(content)))
    key = data.draw(st.sampled_from([*content[where][0], *ENTRY_KEYS]))
    content[where][0][key] = data.draw(JSON)
    refuses_or_reads(tmp_path, name, json.dumps(content).encode())


SUFFIX = {
    "voc": ".xml",
    "csv": ".csv",
    "coco": ".json",
    "soda": ".json",
    "tinyperson": ".json",
    "xview": ".geojson",
}


def refuses_or_reads(tmp_path, name, data):
    """No exception but DataError, whose message is one line with the file in it.

    Boxes are finite.
    """
    path = tmp_path / f"train{SUFFIX.get(name, '.txt')}"
    path.write_bytes(data)
    kind = FORMATS[name]
    try:
        parts = kind.find(
            path if name in ("coco", "csv", "soda", "tinyperson", "xview") else tmp_path
        )
        classes = kind.classes(list(parts.values()))
        for part in parts.values():
            for record in kind.read(part, classes).records():
                assert np.isfinite(record.boxes).all() and record.labels.max(initial=-1) < len(
                    classes.names
                )
                assert (
                    len(
                        {
                            len(record),
                            len(record.labels),
                            len(record.ignore),
                            len(record.ids),
                            len(record.lines),
                        }
                    )
                    == 1
                )
    except coco.DataError as error:
        assert "\n" not in str(error) and str(path) in str(error)


HOSTILE = ("=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-1", "'=1", "''@x", "'plain", "car")


def test_csv_holds_no_formula_and_reads_the_same_names(tmp_path):
    """A spreadsheet runs a cell that begins with =, +, - or @."""
    record = make_record(
        "=image.png", "test", [(1, 2, 3, 4)] * len(HOSTILE), range(len(HOSTILE)), size=(9, 9)
    )
    path = tmp_path / "a.csv"
    csv.write(path, [record], Classes(HOSTILE))
    cells = [cell for line in reader(path.open(newline="")) for cell in line]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@") and cell]
    assert set(csv.classes_of([Part((path,), ())]).names) == set(HOSTILE)
    back = csv.read(Part((path,), ()), Classes(HOSTILE))
    assert back.labels.tolist() == list(range(len(HOSTILE)))
    assert back.paths.tolist() == ["=image.png"]


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_a_crowd_never_becomes_an_object(format, tmp_path):
    """Written where the format can hold it, as what is not learned; else left out and counted."""
    own = {"visdrone": Classes(("car",)), "xview": Classes(("Building",))}  # of fixed ids
    classes = own.get(format, Classes(("ship",)))
    record = make_record(
        "a.png",
        "test",
        [(1, 1, 9, 9), (20, 20, 60, 60), (70, 70, 80, 80)],
        [0, 0, 0],
        ignore=[False, False, True],
        crowd=[False, True, False],
        ids=[1, 2, 3],
        size=(100, 100),
        attributes={"difficult": np.zeros(3, np.int64)},
    )
    (tmp_path / "images/train").mkdir(parents=True)
    write_image(tmp_path / "images/train/a.png", np.zeros((100, 100, 3), np.uint8))
    target = tmp_path / FORMATS[format].target.format(split="train")
    target.parent.mkdir(parents=True, exist_ok=True)
    lost = FORMATS[format].write(target, [record], classes)
    part = Part(
        tuple(sorted(target.iterdir())) if target.is_dir() else (target,),
        (tmp_path / "images/train",),
    )
    store = FORMATS[format].read(part, None if format in own else classes)
    objects = ~(store.ignore | store.crowd)
    assert store.boxes[objects].tolist() == [[1, 1, 9, 9]]
    assert len(store.boxes) + lost.total() == 3


def test_a_refused_row_of_a_table_leaves_nothing(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "image,x1,y1,x2,y2,label,ignore\na.png,1,1,5,5,ship,0\na.png,2,2,6,6,cat,0\n"
        "a.png,3,3,7,7,ship,maybe\na.png,4,4,8,8,ship,1\n"
    )
    store = csv.read(Part((path,), ()), Classes(("ship",)), strict=False)
    assert store.boxes.tolist() == [[1, 1, 5, 5], [4, 4, 8, 8]]
    assert store.ignore.tolist() == [False, True] and len(store.labels) == 2


@pytest.mark.parametrize(
    "text",
    [
        '{"type": "FeatureCollection", "features": [{F}, \n{F}\n]}',
        '{"type": "FeatureCollection", "features": [\n{F},\n{F}]}',
        '{"type": "FeatureCollection", "features": [\n{F}, {F}\n]}',
        '{"type": "FeatureCollection", "features": [\n{F},\n{S}\n]}',
        '{"type": "FeatureCollection", "features": [\n{F},\n{F}\n]}',
    ],
)
def test_xview_features_on_any_lines(text, tmp_path):
    properties = {"bounds_imcoords": "1,2,5,6", "type_id": 73, "image_id": "1.tif"}
    feature = {"type": "Feature", "properties": properties, "geometry": None}
    path = tmp_path / "a.geojson"
    filled = text.replace("{F}", json.dumps(feature)).replace("{S}", json.dumps(feature, indent=1))
    path.write_text(filled)
    store = xview.read(Part((path,), ()), None)
    assert store.boxes.tolist() == [[1, 2, 5, 6]] * 2


def test_soda_has_no_class_of_the_name_of_its_regions(tmp_path):
    with pytest.raises(DataError, match="'ignore' names ignored regions there"):
        soda.write(tmp_path / "a.json", [], Classes(("ship", "ignore")))
