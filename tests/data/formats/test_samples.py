"""Real samples of each format, in ../shared/data/formats beside the checkout or $RFLA_SAMPLES.

Skipped where absent.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from rfla.data.formats import FORMATS, visdrone
from rfla.errors import DataError

SAMPLES = Path(
    os.environ.get(
        "RFLA_SAMPLES", Path(__file__).resolve().parents[4] / "shared" / "data" / "formats"
    )
)

pytestmark = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason=f"no real samples at {SAMPLES}; set RFLA_SAMPLES"
)

# format, source, images, boxes, ignored; counted with wc and by hand from the files
CASES = [
    ("coco", "coco/busan_coco.json", 2, 54, 0),
    ("coco", "coco/terrain_all_coco.json", 3, 22, 0),
    ("coco", "coco/coco_sample_file.json", 2, 6, 0),
    ("coco", "visdrone_coco/visdrone2019-det-train-first12images.json", 12, 1033, 0),
    ("dota", "dota", 7, 998 - 2 * 7, 67),  # two head lines in each of seven files
    ("dota", "dota_split", 2, 4, 1),  # one file is empty
    ("yolo", "yolo/images", 3, 75, 0),
    ("voc", "voc", 6, 119, 0),
    ("tinyperson", "tinyperson/tiny_set_train.first_image.json", 1, 1, 1),
    ("tinyperson", "tinyperson/corner_tiny_set_train_sw640_sh512_all.first6images.json", 6, 0, 0),
    ("xview", "xview/xview-sample-annotation.json", 1, 2, 0),
    ("xview", "xview/xview_2features_from_sql_comment.geojson", 1, 2, 0),
    ("csv", "csv_boxes/testfile_multi.csv", 1, 37, 0),
]


def read(name, source):
    kind = FORMATS[name]
    parts = kind.find(SAMPLES / source)
    classes = kind.classes(list(parts.values()))
    return classes, [
        record for part in parts.values() for record in kind.read(part, classes).records()
    ]


@pytest.mark.parametrize(("name", "source", "images", "boxes", "ignored"), CASES)
def test_counts(name, source, images, boxes, ignored):
    _, records = read(name, source)
    assert len(records) == images
    assert sum(len(record) for record in records) == boxes
    assert sum(int(record.ignore.sum()) for record in records) == ignored


def test_first_boxes():
    assert read("xview", "xview/xview-sample-annotation.json")[1][0].boxes[0].tolist() == [
        2730,
        2489,
        2806,
        2570,
    ]
    classes, records = read("dota", "dota")
    first = next(record for record in records if record.file_name == "P0706")
    assert (
        first.boxes[0].tolist() == [1054, 1011, 1112, 1062] and first.ignore[0]
    )  # a ship, difficult 1
    assert classes.names[first.labels[0]] == "ship"
    classes, records = read("voc", "voc")
    tree = next(record for record in records if record.file_name == "OSBS_029.tif")
    assert tree.boxes[0].tolist() == [203, 67, 227, 90] and classes.names[tree.labels[0]] == "Tree"
    car = next(
        record for record in read("yolo", "yolo/images")[1] if record.file_name == "MOS74.png"
    )
    assert np.allclose(car.boxes[0], [244.54055, 300.33875, 281.40945, 328.41125])
    ships = read("coco", "coco/busan_coco.json")[1]
    assert (
        sum(int(record.crowd.sum()) for record in ships) == 54
    )  # iscrowd 1 on every one, as the file says
    corners = [record.window for record in read("tinyperson", CASES[9][1])[1]]
    assert corners[1] == (590, 0, 1230, 512) and corners[-1] == (640, 208, 1280, 720)


def test_visdrone_lines():
    path = SAMPLES / "visdrone" / "0000002_00005_d_0000014.first9lines.txt"
    record = visdrone.read_file(path, visdrone.classes_of([]))
    assert len(record) == 9 and record.ignore.tolist() == [True] * 4 + [False] * 5
    assert record.boxes[4].tolist() == [708, 471, 782, 504] and record.labels[4] == 3


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("csv", "csv_points/chico_2020_30.csv", r"chico_2020_30\.csv:1: this file holds points"),
        ("yolo", "yolo/train.txt", r"train\.txt:1: no such image"),
        (
            "visdrone",
            "visdrone",
            r"SOURCE\.txt:1: 4 columns",
        ),  # a stray text file among annotations
    ],
)
def test_what_cannot_be_read_says_where(name, source, message):
    with pytest.raises(DataError, match=message):
        read(name, source)
