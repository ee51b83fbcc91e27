"""Mutated annotation files, seeded and bounded: each is read, or refused in one line."""

import json
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from rfla.data import load_data_spec, load_index
from rfla.data.formats import FORMATS
from rfla.data.images import write_image
from rfla.errors import DataError, MetricError
from rfla.metrics import read_ground_truth

NUMBERS = [0, -1, 0.5, 1e-320, 1e308, 2**31, 2**32, 2**53, 2**63, -(2**63) - 1, 10**30, 10**400]
TEXTS = ["", " ", "\0", "\x1b[31m", "\n", "\ud800", "../../x", "C:\\x", "a" * 5000, "[/red]", "nan"]
OTHERS = [None, True, [], {}, [[]], {"a": None}, [1, 2, 3], ["1", "2", "3", "4"], float("nan")]
EVIL = ["[" * 5000, "9" * 5000, "1e999999", '"\\ud800"', "NaN", '{"a":1,"a":2}', "-" + "9" * 400]
SECONDS = 10  # for one input

COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 30, "height": 20}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 5, 6], "area": 30, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": [[1, 2, 6, 2, 6, 8]]},
    ],
    "categories": [{"id": 1, "name": "car", "supercategory": "none"}],
}
DATA = {
    "path": ".",
    "train": {"images": "images", "annotations": "annotations/train.json"},
    "names": ["car"],
    "sizes": {"vt": [0, 8]},
    "settings": {"imgsz": 64},
}
ROWS = {
    "yolo": ("labels/a.txt", "0 .5 .5 .2 .2\n0 .1 .1 .3 .1 .2 .4\n"),
    "visdrone": ("annotations/a.txt", "1,2,5,6,1,4,0,0\n10,2,4,4,0,0,0,0\n"),
    "dota": ("labelTxt/a.txt", "imagesource:x\n1 2 6 2 6 8 1 8 ship 0\n"),
    "csv": ("boxes.csv", "image_path,xmin,ymin,xmax,ymax,label\na.png,1,2,6,8,car\n"),
    "cvat": (
        "annotations.xml",
        '<annotations><image name="a.png" width="30" height="20"><box label="car" xtl="1" ytl="2" '
        'xbr="6" ybr="8" rotation="5"/><polygon label="car" points="1,2;3,4;5,9"/></image>'
        '<track label="car"><box frame="0" outside="0" xtl="1" ytl="2" xbr="6" ybr="8"/></track>'
        "</annotations>",
    ),
    "voc": (
        "Annotations/a.xml",
        "<annotation><size><width>30</width><height>20</height></size><object><name>car</name>"
        "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>6</xmax><ymax>8</ymax></bndbox>"
        "</object></annotation>",
    ),
}


@contextmanager
def time_limit() -> Iterator[None]:
    def too_long(*_: object) -> None:
        raise AssertionError(f"one input took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images/a.png", np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/train.json").write_text(json.dumps(COCO))
    return tmp_path


def mutated(rng: random.Random, content: object) -> object:
    """Change up to three places of a JSON-like document."""
    content = json.loads(json.dumps(content))
    for _ in range(rng.choice([1, 1, 2, 3])):
        at, parent, key = content, None, None
        for _ in range(rng.randint(1, 5)):
            if isinstance(at, dict | list) and at:
                parent = at
                key = rng.choice(list(at)) if isinstance(at, dict) else rng.randrange(len(at))
                at = parent[key]
        if parent is None:
            return rng.choice(OTHERS)
        if rng.random() < 0.15:
            del parent[key]
        else:
            parent[key] = rng.choice([rng.choice(NUMBERS), rng.choice(TEXTS), rng.choice(OTHERS)])
    return content


def read_or_refuse(read) -> None:
    try:
        with time_limit():
            read()
    except (DataError, MetricError) as error:
        assert str(error) and "\n" not in str(error)
        assert len(str(error)) < 1000


@pytest.mark.parametrize("seed", range(8))
def test_coco_files(root: Path, seed: int) -> None:
    rng = random.Random(seed)
    path = root / "annotations/train.json"
    spec = load_data_spec(root)
    kind = FORMATS["coco"]
    for _ in range(40):
        text = json.dumps(mutated(rng, COCO))
        if rng.random() < 0.2:  # what no JSON writer writes
            value = rng.choice([": 1,", ": 30", '"car"', "[1, 2, 5, 6]"])
            text = text.replace(value, f"{value[:2]}{rng.choice(EVIL)}{value[-1:]}", 1)
        path.write_text(text)
        read_or_refuse(lambda: load_index(spec, "train", for_training=True))
        read_or_refuse(lambda: load_index(spec, "train", strict=False))
        read_or_refuse(lambda: list(kind.read(kind.find(root)["train"], None).records()))
        read_or_refuse(lambda: read_ground_truth(path))


@pytest.mark.parametrize("seed", range(3))
def test_data_yamls(root: Path, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(40):
        (root / "data.yaml").write_text(json.dumps(mutated(rng, DATA)))

        def read() -> None:
            spec = load_data_spec(root)
            for split in spec.splits:
                load_index(spec, split, for_training=True)

        read_or_refuse(read)


@pytest.mark.parametrize("format", ROWS)
def test_rows(tmp_path: Path, format: str) -> None:
    name, text = ROWS[format]
    rng = random.Random(len(format))
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images/a.png", np.zeros((20, 30, 3), np.uint8))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / "data.yaml").write_text(f"format: {format}\npath: .\n")
    kind = FORMATS[format]
    for _ in range(60):
        data = bytearray(text.encode())
        for _ in range(rng.choice([1, 2, 4])):
            at = rng.randrange(len(data) + 1)
            piece = rng.choice(
                [b"\0", b"\xff", b"9" * 400, b"nan", b"-1e308", b" ", b"\n", b",", b""]
            )
            data[at : at + rng.choice([0, 1, 3])] = piece
        (tmp_path / name).write_bytes(bytes(data))

        def read() -> None:
            spec = load_data_spec(tmp_path)
            for split in spec.splits:
                load_index(spec, split, for_training=True)

        def convert() -> None:
            parts = kind.find(tmp_path if format != "yolo" else tmp_path / "images")
            for part in parts.values():
                list(kind.read(part, None).records())

        read_or_refuse(read)
        read_or_refuse(convert)
