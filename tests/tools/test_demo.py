"""The demo set: one seed, one set; tight boxes, every class; written whole or not at all."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from rfla.errors import DataError
from rfla.tools.demo import paint_scene, write_demo
from rfla.tools.demo.canvas import blank_painting, disc, rectangle, stamp
from rfla.tools.demo.objects import NAMES
from rfla.tools.demo.places import PLACES
from rfla.tools.demo.write import ensure_demo, prepare_demo


def test_same_number_and_split_same_picture():
    first, again, other = paint_scene(5), paint_scene(5), paint_scene(5, "val")
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()


def test_every_kind_of_place_has_sound_boxes():
    classes: Counter[int] = Counter()
    for number in range(len(PLACES)):
        image, boxes, labels = paint_scene(number, "val")
        classes.update(labels)
        assert image.shape == (256, 256, 3) and image.std() > 8 and len(boxes) == len(labels) <= 150
        sides = boxes[:, 2:] - boxes[:, :2]
        assert (
            (boxes >= 0).all()
            and (boxes <= 256).all()
            and (sides >= 1).all()
            and (sides <= 44).all()
        )
    assert len(paint_scene(len(PLACES) - 1)[1]) == 0  # wilderness
    assert set(classes) == set(range(len(NAMES)))


def test_a_box_is_tight_round_the_painted_pixels():
    scene = blank_painting(np.random.default_rng(0), 64)
    assert stamp(scene, [(rectangle(8, 4, 0.0, (20.25, 30.5)), (1.0, 1.0, 1.0))], 0.0, 3)
    np.testing.assert_allclose(
        scene.boxes[0], [16.25, 28.5, 24.25, 32.5], atol=0.13
    )  # painted at 8 samples a pixel
    x1, y1, x2, y2 = scene.boxes[0]
    covered = scene.image[..., 0]
    assert covered.sum() == pytest.approx((x2 - x1) * (y2 - y1), rel=0.02)
    assert scene.labels == [3]


def test_objects_do_not_overlap_and_stay_at_least_half_inside():
    scene = blank_painting(np.random.default_rng(0), 64)
    assert stamp(scene, [(disc(10, (20, 20)), (1.0, 0.0, 0.0))], 2.0, 0)
    assert not stamp(scene, [(disc(10, (24, 20)), (0.0, 1.0, 0.0))], 2.0, 0)
    assert not stamp(scene, [(disc(10, (-3, 40)), (0.0, 1.0, 0.0))], 2.0, 0)
    assert stamp(scene, [(disc(10, (1, 40)), (0.0, 1.0, 0.0))], 2.0, 0)
    assert scene.boxes[1][0] == 0 and len(scene.boxes) == 2


def test_the_set_is_written_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rfla.tools.demo.write.IMAGES", {"train": 3, "val": 2, "test": 1})
    root = tmp_path / "sets/demo-1"
    ensure_demo(root)
    assert [path.name for path in (tmp_path / "sets").iterdir()] == ["demo-1"]
    content = json.loads((root / "annotations/train.json").read_text())
    assert len(content["images"]) == 3 and {
        entry["name"] for entry in content["categories"]
    } == set(NAMES)
    assert all(
        (root / "images/train" / entry["file_name"]).is_file() for entry in content["images"]
    )
    ids = [
        e["id"]
        for split in ("train", "val", "test")
        for e in json.loads((root / f"annotations/{split}.json").read_text())["images"]
    ]
    assert len(set(ids)) == 6
    before = (root / "annotations/train.json").stat().st_mtime_ns
    ensure_demo(root)  # nothing to do
    assert (root / "annotations/train.json").stat().st_mtime_ns == before


def test_two_writers_give_the_same_files(tmp_path: Path):
    for name in ("a", "b"):
        write_demo(tmp_path / name, images={"val": 2})
    for path in sorted((tmp_path / "a").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_a_painter_that_is_stopped_leaves_no_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(folder: Path) -> None:
        (folder / "images").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr("rfla.tools.demo.write.write_demo", stop)
    with pytest.raises(KeyboardInterrupt):
        ensure_demo(tmp_path / "demo-1")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="set RFLA_DATASETS"):
        ensure_demo(tmp_path / "file" / "demo-1")


def test_only_the_built_in_name_is_painted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A data YAML of somebody else paints nothing, whatever it is called and wherever it points."""
    monkeypatch.setenv("RFLA_DATASETS", str(tmp_path / "sets"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    painted = []
    monkeypatch.setattr("rfla.tools.demo.write.ensure_demo", painted.append)
    prepare_demo("demo")
    assert painted == [tmp_path / "sets" / "demo-1"]
    (tmp_path / "demo.yaml").write_text("path: ..\ntrain: images\nnames: [a]\n")
    for data in ("other", "./demo.yaml", str(tmp_path / "demo.yaml"), "demo.yaml"):
        prepare_demo(data)
    assert len(painted) == 1
