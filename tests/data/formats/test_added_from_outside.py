"""A format that a person adds: four functions and one entry of the table."""

from collections import Counter
from pathlib import Path

import numpy as np

from rfla.data import load_data_spec, load_index
from rfla.data.annotations import Annotations
from rfla.data.formats import FORMATS, Format
from rfla.data.images import write_image
from rfla.data.record import Classes, Part, make_record


def find(source: Path) -> dict[str, Part]:
    return {"train": Part((source / "boxes.toy",), (source,))}


def classes_of(parts) -> Classes:
    return Classes(["car"])


def read(part, classes, *, to_write=True, strict=True) -> Annotations:
    """Rows of `image x1 y1 x2 y2`."""
    rows = [line.split() for line in part.annotations[0].read_text().splitlines()]
    records = [
        make_record(name, str(part.annotations[0]), [[float(value) for value in box]], [0])
        for name, *box in rows
    ]
    return Annotations.of_records(records, classes or classes_of([part]))


def write(path: Path, records, classes: Classes) -> Counter[str]:
    return Counter()


def test_a_toy_format_trains_and_converts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(FORMATS, "toy", Format(find, classes_of, read, write))
    write_image(tmp_path / "a.png", np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "boxes.toy").write_text("a.png 1 2 6 8\n")
    (tmp_path / "data.yaml").write_text("format: toy\npath: .\n")
    index = load_index(load_data_spec(tmp_path), "train", for_training=True)
    assert index.boxes.tolist() == [[1, 2, 6, 8]] and index.image_hw.tolist() == [[20, 30]]
    (record,) = FORMATS["toy"].read(find(tmp_path)["train"], None).records()
    assert record.place(0) == str(tmp_path / "boxes.toy")
