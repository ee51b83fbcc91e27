"""Each format that is written is trained on as it is: the same boxes as from COCO."""

import json
from pathlib import Path

import numpy as np
import pytest

from rfla.cfg.verbs import ConvertOptions
from rfla.data import load_data_spec, load_index
from rfla.data.formats import FORMATS
from rfla.data.images import write_image
from rfla.data.record import is_object
from rfla.tools.convert import convert

NAMES = {"visdrone": ["pedestrian", "car"], "xview": ["Small Car", "Bus"]}
# What cannot hold ignored boxes, and what does not list images without boxes.
NO_REGIONS, NO_EMPTY = {"yolo", "xview", "cvat"}, {"xview"}


def write_set(root: Path, names: list[str]) -> Path:
    """Four images for train and two for val: several boxes, one, none, an ignored crowd."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        images, annotations = [], []
        for number in range(count):
            name = f"{split} {number}.png"
            path = root / "images" / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, rng.integers(0, 255, (64, 80, 3)).astype(np.uint8))
            images.append({"id": number + 1, "file_name": name, "width": 80, "height": 64})
            for box in range((3, 1, 0, 2)[number]):
                x, y, w, h = (int(v) for v in rng.integers((0, 0, 3, 3), (60, 50, 12, 12)))
                entry = {"id": len(annotations) + 1, "image_id": number + 1, "bbox": [x, y, w, h]}
                flags = {"ignore": 1, "iscrowd": 1} if (number, box) == (0, 2) else {}
                annotations.append(entry | {"category_id": 1 + box % 2} | flags)
        categories = [{"id": row, "name": name} for row, name in enumerate(names, 1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        file = root / "annotations" / f"{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_the_same_boxes_from_every_format(tmp_path: Path, format: str) -> None:
    source = write_set(tmp_path / "set", NAMES.get(format, ["car", "ship"]))
    out = tmp_path / "other"
    convert(ConvertOptions(format="coco", source=str(source), out=str(out), to=format))
    (out / "data.yaml").unlink(missing_ok=True)
    names = "names: [car, ship]\n" if format == "yolo" else ""  # which YOLO cannot hold
    (tmp_path / "mine.yaml").write_text(f"format: {format}\npath: other\n{names}")
    for split in ("train", "val"):
        wanted = load_index(load_data_spec(source), split, for_training=True)
        found = load_index(load_data_spec(tmp_path / "mine.yaml"), split, for_training=True)
        for name in {Path(path).name for path in wanted.paths.tolist()}:
            assert boxes_of(found, name, format) == boxes_of(wanted, name, format), name
        assert len(found) == len(wanted) - (format in NO_EMPTY and split == "train")
        objects = load_index(load_data_spec(out), split)  # recognised without a word
        assert is_object(objects).sum() == is_object(wanted).sum()


def boxes_of(index, name: str, format: str) -> set:
    """Class, rounded box and whether it is an object, of each box of one image."""
    rows = [row for row, path in enumerate(index.paths.tolist()) if Path(path).name == name]
    if not rows:
        return set()
    objects = is_object(index)
    return {
        (index.names[index.labels[at]], *index.boxes[at].round(3).tolist(), bool(objects[at]))
        for at in range(index.box_start[rows[0]], index.box_start[rows[0] + 1])
        if objects[at] or format not in NO_REGIONS
    }
