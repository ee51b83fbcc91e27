"""Each format: a few hand-written lines and the boxes they mean."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rfla.data.annotations import REFUSED, REFUSED_FILES
from rfla.data.formats import FORMATS, coco, csv, dota, soda, tinyperson, visdrone, voc, xview, yolo
from rfla.data.images import write_image
from rfla.data.record import NO_CLASS, Classes, Part
from rfla.errors import DataError


def read_all(name, source):
    """Classes and records of every split."""
    kind = FORMATS[name]
    parts = kind.find(source)
    classes = kind.classes(list(parts.values()))
    return classes, {split: list(read.records()) for split, read in stores_of(kind, parts, classes)}


def stores_of(kind, parts, classes):
    return [(split, kind.read(part, classes)) for split, part in parts.items()]


def store_of(name, source):
    """The flat store of the one split."""
    kind = FORMATS[name]
    parts = kind.find(source)
    (store,) = [kind.read(part, kind.classes(parts.values())) for part in parts.values()]
    return store


def picture(path, width, height):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.full((height, width, 3), 90, np.uint8))


def test_visdrone_regions_others_and_scores(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(
        "684,8,273,116,0,0,0,0\n708,471,74,33,1,4,0,1,\n1,2,3,4,0,11,0,0\n5,6,7,8,0,1,1,2\n"
    )
    record = visdrone.read_file(path, visdrone.classes_of([]))
    assert record.file_name == "a"
    assert record.boxes.tolist() == [
        [684, 8, 957, 124],
        [708, 471, 782, 504],
        [1, 2, 4, 6],
        [5, 6, 12, 14],
    ]
    assert record.labels.tolist() == [NO_CLASS, 3, NO_CLASS, 0]
    assert record.ignore.tolist() == [True, False, True, True]  # region, a car, "others", score 0
    assert record.attributes["occlusion"].tolist() == [0, 1, 0, 2]
    assert record.place(1) == f"{path}:2"


def test_dota_tight_box_difficult_and_head_lines(tmp_path):
    path = tmp_path / "P1.txt"
    path.write_text(
        "imagesource:GoogleEarth\ngsd:0.25\n10 5 20 0 30 20 12 25 ship 1\n1 1 2 1 2 2 1 2 plane 0\n"
    )
    classes = Classes(dota.NAMES)
    record = dota.read_file(path, classes)
    assert record.boxes.tolist() == [[10, 0, 30, 25], [1, 1, 2, 2]]
    assert [classes.names[label] for label in record.labels] == ["ship", "plane"]
    assert record.ignore.tolist() == record.crowd.tolist() == [True, False]
    assert record.attributes["polygon"][0].tolist() == [10, 5, 20, 0, 30, 20, 12, 25]
    assert record.lines.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("names", "count"),
    [(["ship"], 15), (["ship", "container-crane"], 16), (["helipad"], 18), (["tree", "car"], 2)],
)
def test_dota_version_follows_from_the_classes(tmp_path, names, count):
    (tmp_path / "labelTxt").mkdir()
    (tmp_path / "labelTxt" / "P1.txt").write_text(
        "".join(f"0 0 1 0 1 1 0 1 {name} 0\n" for name in names)
    )
    classes, _ = read_all("dota", tmp_path)
    assert len(classes.names) == count
    assert classes.names == (sorted(names) if count == 2 else list(dota.NAMES[:count]))


def test_dota_takes_the_newest_labels(tmp_path):
    for folder, name in (("labelTxt-v1.0", "ship"), ("labelTxt-v2.0", "airport")):
        (tmp_path / "train" / folder).mkdir(parents=True)
        (tmp_path / "train" / folder / "P1.txt").write_text(f"0 0 1 0 1 1 0 1 {name} 0\n")
    _, splits = read_all("dota", tmp_path)
    assert splits["train"][0].labels.tolist() == [dota.NAMES.index("airport")]


def test_yolo_shares_polygons_and_images_without_labels(tmp_path):
    picture(tmp_path / "images" / "val" / "a b ü.png", 200, 100)
    picture(tmp_path / "images" / "val" / "empty.png", 20, 10)
    (tmp_path / "labels" / "val").mkdir(parents=True)
    (tmp_path / "labels" / "val" / "a b ü.txt").write_text(
        "1 0.5 0.5 0.1 0.2\n0 0.1 0.1 0.3 0.1 0.2 0.4\n\n"
    )
    classes, splits = read_all("yolo", tmp_path)
    assert classes.names == ["class0", "class1"]
    first, second = splits["val"]
    assert np.allclose(first.boxes, [[90, 40, 110, 60], [20, 10, 60, 40]])
    assert first.labels.tolist() == [1, 0] and len(second) == 0 and second.height == 10


def test_yolo_yaml_and_lists(tmp_path):
    picture(tmp_path / "frames" / "a.png", 10, 10)
    (tmp_path / "frames" / "a.txt").write_text("1 0.5 0.5 1 1\n")
    (tmp_path / "list.txt").write_text("frames/a.png\n")
    (tmp_path / "data.yaml").write_text("train: list.txt\nnames: {0: car, 1: bus}\n")
    classes, splits = read_all("yolo", tmp_path)
    assert classes.names == ["car", "bus"] and splits["train"][0].boxes.tolist() == [[0, 0, 10, 10]]


def test_voc_any_order_of_corners_and_difficult(tmp_path):
    (tmp_path / "a.xml").write_text(
        "<annotation><filename>ä b.jpg</filename>"
        "<size><width>100</width><height>50</height></size>\n"
        "<object><name>jet ski</name><difficult>1</difficult>\n"
        "<bndbox><xmin>5</xmin><xmax>22.5</xmax><ymin>4</ymin><ymax>9</ymax></bndbox></object></annotation>"
    )
    classes, splits = read_all("voc", tmp_path)
    ((record,),) = splits.values()
    assert classes.names == ["jet ski"] and (record.file_name, record.other_name) == (
        "a",
        "ä b.jpg",
    )
    assert record.boxes.tolist() == [[5, 4, 22.5, 9]] and record.ignore.tolist() == [True]
    assert (record.width, record.height) == (100, 50)


def test_csv_with_one_bbox_column_and_shares_refused(tmp_path):
    head = "image_id,width,height,bbox,source\n"
    (tmp_path / "a.csv").write_text(head + 'x,100,50,"[83.5, 2, 10.0, 3]",s\ny,100,50,,s\n')
    _, splits = read_all("csv", tmp_path)
    first, second = splits["train"]
    assert first.boxes.tolist() == [[83.5, 2, 93.5, 5]] and (first.width, len(second)) == (100, 0)
    (tmp_path / "a.csv").write_text(head + 'x,100,50,"[1, 2, 3]",s\n')
    with pytest.raises(
        DataError, match=r"a\.csv:2: bbox must be four numbers x, y, w, h, not '\[1, 2, 3\]'"
    ):
        read_all("csv", tmp_path)
    (tmp_path / "a.csv").write_text("ImageID,XMin,XMax,YMin,YMax\nx,0.2,0.5,0.1,1\n")
    with pytest.raises(DataError, match="no coordinate is above 1: these are normalised coord"):
        read_all("csv", tmp_path)


def test_csv_flags_regions_and_ids(tmp_path):
    head = "image_path,xmin,ymin,xmax,ymax,label,ignore,difficult,annotation_id\n"
    rows = [
        "a,1,2,3,4,car,0,0,5",
        "a,1,2,3,4,,true,,6",
        "a,1,2,3,4,car,,1,7",
        "b,1,2,3,4,car,no,0,8",
    ]
    (tmp_path / "a.csv").write_text(head + "\n".join(rows))
    _, splits = read_all("csv", tmp_path)
    first, second = splits["train"]
    assert first.labels.tolist() == [0, NO_CLASS, 0] and first.ids.tolist() == [5, 6, 7]
    assert first.ignore.tolist() == first.crowd.tolist() == [False, True, True]
    assert not second.ignore.any() and not store_of("csv", tmp_path).counts
    (tmp_path / "a.csv").write_text(head + "\n".join([*rows, "b,5,5,6,6,car,0,0,5"]))
    first, second = read_all("csv", tmp_path)[1]["train"]
    assert first.ids.tolist() == [-1] * 3 and second.ids.tolist() == [-1] * 2
    assert list(store_of("csv", tmp_path).counts.values()) == [5]
    (tmp_path / "a.csv").write_text(f"{head}a,1,2,3,4,car,0,0,e-1\n")
    assert read_all("csv", tmp_path)[1]["train"][0].ids.tolist() == [-1]
    for row, message in (
        ("a,1,2,3,4,,0,1,5", "no class name"),
        ("a,1,2,3,4,car,maybe,0,5", "ignore must be 0 or 1, not 'maybe'"),
    ):
        (tmp_path / "a.csv").write_text(f"{head}{row}\n")
        with pytest.raises(DataError, match=rf"a\.csv:2: {message}"):
            read_all("csv", tmp_path)


def test_dota_as_its_archives_unpack(tmp_path):
    for split in ("train", "val"):
        for folder in (f"DOTA-v2.0_{split}", f"DOTA-v2.0_{split}_hbb"):
            path = tmp_path / "d" / split / "labelTxt-v2.0" / folder / f"{split}.txt"
            path.parent.mkdir(parents=True)
            path.write_text("1 1 5 1 5 4 1 4 ship 0\n" * (2 if "hbb" in folder else 1))
    for source, found in (
        (tmp_path / "d", {"train": 1, "val": 1}),
        (tmp_path / "d" / "val", {"val": 1}),
    ):
        _, splits = read_all("dota", source)
        assert {split: sum(map(len, records)) for split, records in splits.items()} == found


def test_voc_lists_of_the_challenge(tmp_path):
    for name in ("1", "2", "3"):
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{name}.xml").write_text("<annotation></annotation>")
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("1\n2\n")
    (lists / "val.txt").write_text("3\n")
    _, splits = read_all("voc", tmp_path)
    assert {
        split: [record.file_name for record in records] for split, records in splits.items()
    } == {
        "train": ["1", "2"],
        "val": ["3"],
    }


def coco_content(**annotation):
    entry = {
        "id": 7,
        "image_id": 3,
        "category_id": 2,
        "bbox": [1, 2, 3, 4],
        "area": 12,
        "iscrowd": 0,
    } | annotation
    image = {"id": 3, "file_name": "a.png", "width": 20, "height": 10}
    return {
        "images": [image],
        "annotations": [entry],
        "categories": [{"id": 2, "name": "ship"}, {"id": 0, "name": "car"}],
    }


def test_coco_ids_order_and_flags(tmp_path):
    path = tmp_path / "instances_val.json"
    path.write_text(json.dumps(coco_content(ignore=1, segmentation=[[0, 0, 4, 0, 4, 6, 0, 6]])))
    classes, splits = read_all("coco", path)
    assert classes.names == ["car", "ship"] and classes.ids == [0, 2]  # ascending by id
    record = splits["val"][0]
    assert record.boxes.tolist() == [[1, 2, 4, 6]] and record.labels.tolist() == [1]
    assert record.ids.tolist() == [7] and record.image_id == 3
    assert record.ignore.tolist() == [True] and record.crowd.tolist() == [False]
    assert record.attributes["polygon"].tolist() == [[0, 0, 4, 0, 4, 6, 0, 6]]


def test_coco_region_without_class(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(coco_content(category_id=-1)))
    _, splits = read_all("coco", path)
    assert splits["train"][0].labels.tolist() == [NO_CLASS] and splits["train"][
        0
    ].ignore.tolist() == [True]


def test_coco_ids_that_repeat_are_left_out(tmp_path):
    content = coco_content()
    content["annotations"] *= 2
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content))
    _, splits = read_all("coco", path)
    assert splits["train"][0].ids.tolist() == [-1, -1] and splits["train"][0].image_id == 3


def test_tinyperson_corner_is_two_corners_and_flags_ignore(tmp_path):
    content = coco_content(uncertain=True, ignore=False, logo=False)
    content["images"][0] |= {"corner": [590, 0, 1230, 512], "width": 640, "height": 512}
    path = tmp_path / "tiny_set_train.json"
    path.write_text(json.dumps(content))
    _, splits = read_all("tinyperson", path)
    record = splits["train"][0]
    assert record.window == (590, 0, 1230, 512) and record.boxes.tolist() == [[1, 2, 4, 6]]
    assert record.ignore.tolist() == record.crowd.tolist() == [True]


def test_tinyperson_prefers_erased_tiles_for_training_and_whole_images_for_test(tmp_path):
    for name in (*tinyperson.TRAIN, *tinyperson.TEST):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / tinyperson.ERASED / "train").mkdir()
    (tmp_path / "test").mkdir()
    parts = tinyperson.find(tmp_path)
    assert parts["train"] == Part((tmp_path / tinyperson.TRAIN[0],), parts["train"].images)
    assert parts["train"].images[0] == tmp_path / tinyperson.ERASED / "train"
    assert parts["test"].annotations == (tmp_path / tinyperson.TEST[0],) and parts[
        "test"
    ].images == (tmp_path / "test",)


def test_soda_a_polygons_one_file_an_image_and_ignored_class(tmp_path):
    categories = [{"id": 0, "name": "airplane"}, {"id": 1, "name": "ignore"}]
    for number in (1, 2):
        folder = tmp_path / "Annotations" / "test"
        folder.mkdir(parents=True, exist_ok=True)
        entries = [
            {"poly": [3, 1, 9, 2, 8, 6, 2, 5], "category_id": 0, "area": 20},
            {"poly": [0, 0, 5, 0, 5, 5], "category_id": 1},
        ]
        image = {"file_name": f"{number}.jpg", "width": 30, "height": 20, "id": 5}
        content = {"images": image, "annotations": entries, "categories": categories}
        (folder / f"{number}.json").write_text(json.dumps(content))
    classes, splits = read_all("soda", tmp_path)
    assert classes.names == ["airplane"] and [record.file_name for record in splits["test"]] == [
        "1.jpg",
        "2.jpg",
    ]
    record = splits["test"][0]
    assert record.boxes.tolist() == [[2, 1, 9, 6], [0, 0, 5, 5]] and record.labels.tolist() == [
        0,
        NO_CLASS,
    ]
    assert record.ignore.tolist() == [False, True] and record.image_id is None


def test_soda_d_is_one_file_a_split(tmp_path):
    (tmp_path / "Annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / "Annotations" / f"{split}.json").write_text(json.dumps(coco_content()))
    (tmp_path / "Images").mkdir()
    parts = soda.find(tmp_path)
    assert set(parts) == {"train", "val"} and parts["val"].images[0] == tmp_path / "Images"


def xview_feature(image="5.tif", bounds="1,2,11,22", kind=73, number=1):
    properties = {
        "image_id": image,
        "bounds_imcoords": bounds,
        "type_id": kind,
        "feature_id": number,
    }
    return {"type": "Feature", "properties": properties, "geometry": None}


@pytest.mark.parametrize("lines", [True, False])
def test_xview_by_lines_or_at_once(tmp_path, lines):
    features = [
        xview_feature(),
        xview_feature(kind=75, number=2),
        xview_feature(bounds="5,6,7,8", kind=17, number=3),
    ]
    path = tmp_path / "xView_train.geojson"
    if lines:  # as ogr2ogr writes it, and as it is published
        body = ",\n".join(json.dumps(feature) for feature in features)
        path.write_text('{ "type": "FeatureCollection",\n"features": [\n' + body + "\n]\n}\n")
    else:
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}, indent=1))
    classes, splits = read_all("xview", tmp_path)
    assert len(classes.names) == 60 and classes.ids[0] == 11 and classes.ids[-1] == 94
    (record,) = [record for records in splits.values() for record in records]
    kind, parts = FORMATS["xview"], FORMATS["xview"].find(tmp_path)
    dropped = sum((read.dropped for _, read in stores_of(kind, parts, classes)), Counter())
    assert record.boxes.tolist() == [[1, 2, 11, 22], [5, 6, 7, 8]]
    assert [classes.names[label] for label in record.labels] == ["Building", "Passenger Vehicle"]
    assert record.ids.tolist() == [1, 3] and dropped == {"undefined type (75 or 82)": 1}
    assert record.lines.tolist() == ([3, 5] if lines else [0, 0])


def test_xview_scenes_are_split_by_name_once_for_all():
    names = [f"{number}.tif" for number in range(1000)]
    share = sum(xview.split_of_scene(name) == "val" for name in names) / len(names)
    assert 0.07 < share < 0.13 and xview.split_of_scene("5.tif") == xview.split_of_scene("5.tif")


@pytest.mark.parametrize(
    ("text", "boxes", "names"),
    [
        ("image_path,xmin,ymin,xmax,ymax,label\na.png,1,2,5,8,Dead\n", [[1, 2, 5, 8]], ["Dead"]),
        (
            "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,30,20,cat,1,2,5,8\n",
            [[1, 2, 5, 8]],
            ["cat"],
        ),
        ("ID\tX\tY\tW\tH\tC_X\tCY\na\t1\t2\t4\t6\t3\t5\n", [[1, 2, 5, 8]], ["object"]),
        ("image;x;y;w;h;label\n\na.png;1;2;4;6;b\n", [[1, 2, 5, 8]], ["b"]),
        (
            "a.png,1,2,5,8,b\nb.png,,,,,\n",
            [[1, 2, 5, 8]],
            ["b"],
        ),  # keras-retinanet: no head, an empty image
        ('image,xmin,ymin,xmax,ymax,label\n"a, b.png",1,2,5,8,"x, y"\n', [[1, 2, 5, 8]], ["x, y"]),
    ],
)
def test_csv_dialects(tmp_path, text, boxes, names):
    path = tmp_path / "train.csv"
    path.write_text(text)
    classes, splits = read_all("csv", path)
    assert splits["train"][0].boxes.tolist() == boxes and classes.names == names


def test_csv_points_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("image,x,y\na.png,1,2\n")
    with pytest.raises(csv.DataError, match=r"a\.csv:1: this file holds points"):
        read_all("csv", tmp_path / "a.csv")


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf1,2,3,4,1,4,0,0\r\n5,6,7,8,1,4,0,0\r\n")
    assert len(visdrone.read_file(path, visdrone.classes_of([]))) == 2


def test_coco_layouts_of_the_challenge_and_of_roboflow(tmp_path):
    for folder, file in (
        ("a/annotations", "instances_train2017"),
        ("b/train", "_annotations.coco"),
        ("b/valid", "x"),
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"{file}.json").write_text(json.dumps(coco_content()))
    (tmp_path / "a" / "train2017").mkdir()
    parts = coco.find(tmp_path / "a")
    assert set(parts) == {"train"} and parts["train"].images[0] == tmp_path / "a" / "train2017"
    parts = coco.find(tmp_path / "b")
    assert set(parts) == {"train", "val"} and parts["val"].images == (tmp_path / "b" / "valid",)


def test_coco_files_of_one_split_lose_their_ids(tmp_path):
    for name in ("1", "2"):
        (tmp_path / f"{name}.json").write_text(json.dumps(coco_content()))
    part = Part((tmp_path / "1.json", tmp_path / "2.json"), ())
    assert [
        (r.image_id, r.ids.tolist()) for r in coco.read(part, coco.classes_of([part])).records()
    ] == [(None, [-1])] * 2


def test_splits_by_directory_names(tmp_path):
    for folder in ("VisDrone2019-DET-train", "VisDrone2019-DET-val", "VisDrone2019-DET-test-dev"):
        (tmp_path / folder / "annotations").mkdir(parents=True)
        (tmp_path / folder / "images").mkdir()
        (tmp_path / folder / "annotations" / "1.txt").write_text("")
    parts = visdrone.find(tmp_path)
    assert set(parts) == {"train", "val", "test"}
    assert parts["test"].images == (tmp_path / "VisDrone2019-DET-test-dev" / "images",)
    assert voc.find is not yolo.find and coco.find is not None


@pytest.mark.parametrize("form", ["visdrone", "dota", "voc", "csv"])
def test_a_malformed_row_costs_its_row_alone(form: str, tmp_path: Path) -> None:
    """Two images of two objects, one of which is malformed, without a table of classes."""
    thing = "<object><name>{}</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax>"
    thing += "<ymax>{}</ymax></bndbox></object>"
    right, wrong = {
        "visdrone": ("1,2,8,8,1,4,0,0\n", "1,2,8,8,1,44,0,0\n"),
        "dota": ("1 2 9 2 9 9 1 9 ship 0\n", "1 2 9 2 9 9 1 x ship 0\n"),
        "voc": (thing.format("ship", 9), thing.format("ship", "x")),
        "csv": ("{0}.png,1,2,9,9,ship\n", "{0}.png,1,2,9,x,ship\n"),
    }[form]
    suffix = {"voc": ".xml", "csv": ".csv"}.get(form, ".txt")
    texts = {"a": right + right, "b": right + wrong}
    if form == "csv":
        texts = {"all": "".join(text.format(name) for name, text in texts.items())}
    if form == "voc":
        texts = {name: f"<annotation>{text}</annotation>" for name, text in texts.items()}
    for name, text in texts.items():
        (tmp_path / (name + suffix)).write_text(text)
    files = tuple(tmp_path / (name + suffix) for name in texts)
    reader = FORMATS[form]
    part = Part(files, ())
    table = reader.classes([part])
    found = reader.read(part, table, strict=False)
    assert np.diff(found.box_start).tolist() == [2, 1]
    assert found.counts == {REFUSED: 1} and str(files[-1]) in found.examples[REFUSED]
    with pytest.raises(DataError, match=re.escape(str(files[-1]))):
        reader.read(part, table)


def test_a_file_that_is_no_xml_costs_its_image(tmp_path: Path) -> None:
    files = tmp_path / "a.xml", tmp_path / "b.xml"
    files[0].write_text("<annotation></annotation>")
    files[1].write_text("<annotation>")
    part = Part(files, ())
    found = FORMATS["voc"].read(part, FORMATS["voc"].classes([part]), strict=False)
    assert len(found) == 1 and found.counts == {REFUSED_FILES: 1}


def test_rows_of_one_csv_image_are_together(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    names = ("./images/a.png", "images\\a.png", "images/a.png")
    path.write_text("".join(f"{name},1,{number},9,9,ship\n" for number, name in enumerate(names)))
    found = csv.read(Part((path,), ()), Classes(["ship"]))
    assert found.paths.tolist() == ["images/a.png"] and found.box_start.tolist() == [0, 3]


def test_a_name_that_stands_twice_in_classes_txt(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png", 20, 20)
    (tmp_path / "classes.txt").write_text("ship\ncar\nship\n")
    with pytest.raises(DataError, match=r"classes.txt: class 'ship' is named twice"):
        yolo.classes_of(yolo.find(tmp_path).values())


def test_classes_that_dota_cannot_tell_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="classes 'a b' and 'a-b' would both be 'a-b'"):
        dota.write(tmp_path, [], Classes(["a b", "c", "a-b"]))
