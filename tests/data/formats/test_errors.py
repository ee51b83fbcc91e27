"""What is malformed is refused with one line: file, line, what is wrong, what is allowed."""

import json

import numpy as np
import pytest

from rfla.data.formats import FORMATS
from rfla.data.images import write_image
from rfla.data.record import Classes, Part
from rfla.errors import DataError

GOOD_IMAGE = {"id": 1, "file_name": "a.png", "width": 20, "height": 10}
GOOD_BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}


def coco_text(image=None, box=None, categories=None):
    content = {
        "images": [GOOD_IMAGE | (image or {})],
        "annotations": [GOOD_BOX | (box or {})],
        "categories": [{"id": 1, "name": "car"}] if categories is None else categories,
    }
    return json.dumps(content)


def read(name, source, names=()):
    kind = FORMATS[name]
    parts = kind.find(source)
    classes = Classes(names) if names else kind.classes(list(parts.values()))
    return [record for part in parts.values() for record in kind.read(part, classes).records()]


VOC = "<annotation>\n<object>\n<name>{name}</name><bndbox>{box}</bndbox>\n</object></annotation>"
BOX = "<xmin>1</xmin><ymin>2</ymin><xmax>{}</xmax><ymax>4</ymax>"

CASES = [
    # format, file, content, names, what the message says
    (
        "visdrone",
        "a.txt",
        "1,2,3,4,1,4,0,0\n1,2,3\n",
        (),
        r"a\.txt:2: 3 columns, not the 8 of VisDrone",
    ),
    ("visdrone", "a.txt", "1,2,3,4,1,4,0,0,9\n", (), r"a\.txt:1: 9 columns"),
    ("visdrone", "a.txt", "1,2,x,4,1,4,0,0\n", (), r"a\.txt:1: 'x' is not a number"),
    ("visdrone", "a.txt", "1,2,nan,4,1,4,0,0\n", (), r"a\.txt:1: 'nan' is not a finite number"),
    (
        "visdrone",
        "a.txt",
        "1_0,2,3,4,1,4,0,0\n",
        (),
        r"a\.txt:1: '1_0' is not a number",
    ),  # 10 to Python
    ("visdrone", "a.txt", "1,2,inf,4,1,4,0,0\n", (), r"'inf' is not a finite number"),
    ("visdrone", "a.txt", "1,2,3,4,1,12,0,0\n", (), r"a\.txt:1: category 12 is none of 0 to 11"),
    ("visdrone", "a.txt", "1,2,3,4,1,1.5,0,0\n", (), r"category 1\.5"),
    ("visdrone", "a.txt", "1,2,3,4,7,1,0,0\n", (), r"a\.txt:1: score must be 0 or 1"),
    ("dota", "a.txt", "gsd:1\n1 2 3 4 5 6 7 8\n", (), r"a\.txt:2: 8 columns, not the 10 of DOTA"),
    ("dota", "a.txt", "1 2 3 4 5 6 7 nan ship 0\n", (), r"a\.txt:1: 'nan'"),
    ("dota", "a.txt", "1 2 3 4 5 6 7 8 ship 3\n", (), r"difficult must be 0, 1 or 2, not 3"),
    (
        "dota",
        "a.txt",
        "1 2 3 4 5 6 7 8 shop 0\n",
        ("ship",),
        r"a\.txt:1: unknown class 'shop'.*did you mean 'ship'",
    ),
    ("yolo", "a.txt", "0 0.5 0.5 0.1\n", ("car",), r"a\.txt:1: 4 columns, not the 5 of YOLO"),
    ("yolo", "a.txt", "0 0.5 0.5 0.1 0.1 0.1\n", ("car",), r"a\.txt:1: 6 columns"),
    ("yolo", "a.txt", "\n1 0.5 0.5 0.1 0.1\n", ("car",), r"a\.txt:2: class 1 is none of 0 to 0"),
    ("yolo", "a.txt", "-1 0.5 0.5 0.1 0.1\n", ("car",), r"class -1 is none of"),
    ("yolo", "a.txt", "0 320 240 10 10\n", ("car",), r"a\.txt:1: 320 is not between 0 and 1"),
    ("yolo", "a.txt", "0 0.5 NaN 0.1 0.1\n", ("car",), r"'NaN' is not a finite number"),
    ("yolo", "a.txt", "car 0.5 0.5 0.1 0.1\n", ("car",), r"a\.txt:1: 'car' is not a number"),
    (
        "voc",
        "a.xml",
        VOC.format(name="car", box=BOX.format("two")),
        (),
        r"a\.xml:3: 'two' is not a number",
    ),
    ("voc", "a.xml", VOC.format(name="car", box=BOX.format("nan")), (), r"a\.xml:3: 'nan'"),
    (
        "voc",
        "a.xml",
        VOC.format(name="car", box="<xmin>1</xmin>"),
        (),
        r"a\.xml:2: this object has no bndbox/ymin",
    ),
    (
        "voc",
        "a.xml",
        VOC.format(name="", box=BOX.format(3)),
        (),
        r"a\.xml:2: this object has no name",
    ),
    (
        "voc",
        "a.xml",
        VOC.format(name="cat", box=BOX.format(3)),
        ("car",),
        r"a\.xml:3: unknown class 'cat'",
    ),
    (
        "voc",
        "a.xml",
        "<annotation>\n<object>\n",
        (),
        r"a\.xml:3: not valid XML \(no element found\)",
    ),
    ("voc", "a.xml", "<html></html>", (), r"a\.xml:1: not a Pascal VOC file \(its root is <html>"),
    (
        "voc",
        "a.xml",
        '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>',
        (),
        r"declares an XML entity",
    ),
    ("coco", "a.json", '{"images": [\n}', (), r"a\.json:2: not valid JSON"),
    ("coco", "a.json", '{"images": [], "images": []}', (), r"an object has the key 'images' twice"),
    (
        "coco",
        "a.json",
        coco_text(categories=[{"id": 1, "name": "\ud800"}]),
        (),
        r"half of a surrogate pair",
    ),
    ("coco", "a.json", "[]", (), r"not a COCO detection file \(expected object, got array"),
    ("coco", "a.json", coco_text(categories=[]), (), r"no categories"),
    (
        "coco",
        "a.json",
        coco_text(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]),
        (),
        r"used twice",
    ),
    (
        "coco",
        "a.json",
        coco_text(box={"category_id": 9}),
        (),
        r"annotations\[0\]: unknown category id 9; ids are 1",
    ),
    (
        "coco",
        "a.json",
        coco_text(box={"image_id": 5}),
        (),
        r"annotations\[0\] belongs to image 5, which is not listed",
    ),
    (
        "coco",
        "a.json",
        coco_text(box={"bbox": [1, 2, 3]}),
        (),
        r"annotations\[0\]: bbox must be four finite numbers",
    ),
    (
        "coco",
        "a.json",
        coco_text(box={"bbox": [1, 2, 3, None]}),
        (),
        r"bbox must be four finite numbers",
    ),
    (
        "coco",
        "a.json",
        coco_text(box={"bbox": [1, 2, 3, float("nan")]}),
        (),
        r"bbox must be four finite numbers",
    ),
    (
        "coco",
        "a.json",
        coco_text(image={"file_name": ""}),
        (),
        r"images\[0\]: file_name must be a text",
    ),
    (
        "coco",
        "a.json",
        coco_text(image={"width": "wide"}),
        (),
        r"images\[0\]: width must be a whole number",
    ),
    (
        "tinyperson",
        "a.json",
        coco_text(image={"corner": "x"}),
        (),
        r"corner must be four finite numbers",
    ),
    (
        "tinyperson",
        "a.json",
        coco_text(image={"corner": [5, 5, 1, 9]}),
        (),
        r"corner must be whole x1, y1, x2, y2",
    ),
    (
        "csv",
        "a.csv",
        "image,xmin,ymin,xmax,ymax\na,1,2,3,4\nb,1,2,3\n",
        (),
        r"a\.csv:3: 4 columns, the first row has 5",
    ),
    ("csv", "a.csv", "image,xmin,ymin,xmax\na,1,2,3\n", (), r"a\.csv:1: no column for y2"),
    ("csv", "a.csv", "image,xmin,ymin,xmax,ymax\na,1,2,3,\n", (), r"a\.csv:2: '' is not a number"),
    (
        "csv",
        "a.csv",
        "image,xmin,ymin,xmax,ymax,label\na,1,2,3,4,\n",
        (),
        r"a\.csv:2: no class name",
    ),
    ("csv", "a.csv", "image,xmin,ymin,xmax,ymax\n,1,2,3,4\n", (), r"a\.csv:2: no image name"),
    (
        "xview",
        "a.geojson",
        '{"features": [{"properties": {"image_id": 5}}]}',
        (),
        r"features\[0\]: image_id must be a text",
    ),
    (
        "xview",
        "a.geojson",
        '{"features": [\n{"type": "Feature", "properties": {"image_id": "5", "type_id": 17, '
        '"bounds_imcoords": "1"}}'
        "\n]}",
        (),
        r"a\.geojson:2: bounds_imcoords must be 'x1,y1,x2,y2'",
    ),
    (
        "xview",
        "a.geojson",
        '{"features": [{"properties": {"image_id": "5.tif", "type_id": 1, '
        '"bounds_imcoords": "1,2,3,4"}}]}',
        (),
        r"features\[0\]: unknown category id 1",
    ),
]


@pytest.mark.parametrize(("name", "file", "content", "names", "message"), CASES)
def test_refused_with_place_and_reason(tmp_path, name, file, content, names, message):
    (tmp_path / file).write_text(content)
    if name == "yolo":
        write_image(tmp_path / "a.png", np.zeros((10, 20, 3), np.uint8))
    with pytest.raises(DataError, match=message) as error:
        read(name, tmp_path, names)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_empty_or_missing_source(tmp_path, name):
    with pytest.raises(DataError, match="source="):
        read(name, tmp_path)
    with pytest.raises(DataError, match=r"no such|no \."):
        read(name, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "file"), [("visdrone", "a.txt"), ("dota", "a.txt"), ("voc", "a.xml"), ("csv", "a.csv")]
)
def test_not_text(tmp_path, name, file):
    (tmp_path / file).write_bytes(b"\xff\xfe\x00\x81\n")
    with pytest.raises(DataError, match=r"not UTF-8|not valid XML"):
        read(name, tmp_path)


def test_two_images_of_one_stem_are_not_guessed(tmp_path):
    from rfla.data.formats.images import ImageFinder

    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_image(tmp_path / folder / "a.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="ambiguous; it could be"):
        ImageFinder([tmp_path]).find("a.jpg")
    assert ImageFinder([tmp_path]).find("x/a.png") == tmp_path / "x" / "a.png"
    assert ImageFinder([tmp_path]).find("../../../etc/passwd") is None
    assert ImageFinder([tmp_path]).find("x" * 5000) is None


def test_accents_are_found_however_they_are_written(tmp_path):
    from rfla.data.formats.images import ImageFinder

    write_image(tmp_path / "\u00fc.png", np.zeros((4, 4, 3), np.uint8))
    assert ImageFinder([tmp_path]).find("u\u0308.jpg") == tmp_path / "\u00fc.png"


@pytest.mark.parametrize("width", [2**31, 2**53, -(2**40)])
def test_a_stated_size_beyond_all_images_is_no_traceback(tmp_path, width):
    text = (
        "<annotation><filename>a.png</filename>"
        f"<size><width>{width}</width><height>48</height></size></annotation>"
    )
    (tmp_path / "a.xml").write_text(text)
    part = Part((tmp_path / "a.xml",), (tmp_path,))
    store = FORMATS["voc"].read(part, Classes(["car"]))
    assert store.image_hw[0].tolist() == [48, min(max(width, 0), 2**31 - 1)]
