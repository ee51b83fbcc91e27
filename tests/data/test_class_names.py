"""Class names that would steer a terminal or cannot be written are taken as escapes."""

import json
from pathlib import Path

import pytest

from rfla.data import load_data_spec, load_index
from rfla.data.record import Classes
from rfla.errors import DataError

HOSTILE = ["\x1b[31mred", "half \ud800", "two\nlines", "[/red]", "ship"]
SHOWN = [r"\x1b[31mred", r"half \ud800", r"two\nlines", "[/red]", "ship"]


def test_class_table() -> None:
    classes = Classes(HOSTILE)
    assert classes.names == SHOWN
    # A file that writes the raw name still means that class.
    assert [classes.label(name, "x.csv") for name in HOSTILE] == [0, 1, 2, 3, 4]
    grown = Classes(grows=True)
    assert [grown.label(name, "x.csv") for name in [*HOSTILE, *HOSTILE]] == [0, 1, 2, 3, 4] * 2
    assert grown.names == SHOWN


@pytest.mark.parametrize("named_by", ["the data YAML", "the annotation file"])
def test_whole_data_set(tmp_path: Path, named_by: str) -> None:
    written = [name for name in HOSTILE if "\ud800" not in name]  # which no JSON reader takes
    shown = [name for name in SHOWN if "ud800" not in name]
    names = f"names: {json.dumps(written)}\n" if named_by == "the data YAML" else ""
    (tmp_path / "data.yaml").write_text(f"train: train.json\nimages: .\n{names}")
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(written)],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 8, 8]}],
    }
    (tmp_path / "train.json").write_text(json.dumps(coco))
    index = load_index(load_data_spec(tmp_path / "data.yaml"), "train", need_images=False)
    assert list(index.names) == shown
    assert index.labels.tolist() == [1]


@pytest.mark.parametrize("source", ["table", "file", "yaml"])
def test_a_name_that_nothing_can_show_is_refused(tmp_path: Path, source: str) -> None:
    name = "n" * 201
    with pytest.raises(DataError, match=r"a class name of 201 letters, 'nnn.*; at most 200"):
        if source == "table":
            Classes(["car", name])
        elif source == "file":
            Classes(grows=True).label(name, "a.csv:3")
        else:
            (tmp_path / "data.yaml").write_text(f"train: .\nval: .\nnames: [car, {name}]\n")
            load_data_spec(tmp_path / "data.yaml")
    assert Classes(["n" * 200]).names == ["n" * 200]


def test_ten_thousand_names_are_the_most(tmp_path: Path) -> None:
    names = ", ".join(f"n{number}" for number in range(10_001))
    (tmp_path / "data.yaml").write_text(f"train: .\nval: .\nnames: [{names}]\n")
    with pytest.raises(DataError, match="10,001 class names; at most 10000"):
        load_data_spec(tmp_path / "data.yaml")
