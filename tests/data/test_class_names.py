"""Class names that would steer a terminal or cannot be written are taken as escapes."""

import json
from pathlib import Path

import pytest

from rfla.data import load_data_spec, load_index
from rfla.data.record import Classes

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
