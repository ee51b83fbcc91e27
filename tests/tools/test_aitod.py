"""AI-TOD built from synthetic scenes that have the names and quirks of the real ones."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from rfla.cfg.verbs import ConvertOptions, load_options
from rfla.data import load_data_spec, load_index
from rfla.data.images import read_image, write_image
from rfla.errors import ConfigError, DataError
from rfla.tools.aitod import build_aitod
from rfla.tools.aitod.names import find_annotations
from rfla.tools.convert.command import run_convert

# A usual tile, the near-duplicate last column of a 1007 px scene (600, then 207), a scene smaller
# than a tile.
TRAIN = ["5__0_0.png", "5__600_0.png", "12__0_0.png", "P0706__1.0__0___0.png"]
VAL = ["5__207_0.png"]
TEST = ["5__0_200.png", "0000002_00005_d_0000014__0_0.png"]


def pixels(height, width, seed):
    return np.random.default_rng(seed).integers(1, 255, (height, width, 3), np.uint8)


def coco_file(path, names, first_id=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [
        {"id": first_id + i, "file_name": name, "width": 800, "height": 800}
        for i, name in enumerate(names)
    ]
    box = {"bbox": [10, 20, 12, 8], "area": 96, "iscrowd": 0, "category_id": 6}
    annotations = [box | {"id": 100 + image["id"], "image_id": image["id"]} for image in images]
    names = [
        "airplane",
        "bridge",
        "storage-tank",
        "ship",
        "swimming-pool",
        "vehicle",
        "person",
        "wind-mill",
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )


@pytest.fixture
def sources(tmp_path):
    """Annotations, two scenes (as real TIFF files), and the part without xView."""
    notes, xview, other = tmp_path / "notes", tmp_path / "xview", tmp_path / "wo"
    coco_file(notes / "aitod_training_v1.0.json", TRAIN)
    coco_file(notes / "aitod_val_v1.json", VAL, 50)
    coco_file(notes / "aitod_trainval_v1_1.0.json", TRAIN + VAL)
    coco_file(notes / "aitod_test_v1.json", TEST)
    coco_file(notes / "v2" / "small_trainval_v2_3.0.json", TRAIN + VAL)
    xview.mkdir()
    scenes = {"5": pixels(1000, 1007, 5), "12": pixels(500, 640, 12)}
    for number, scene in scenes.items():
        write_image(xview / f"{number}.tif", scene)
    (xview / "._5.tif").write_bytes(b"Mac")
    for folder, name in (("train", TRAIN[3]), ("test", TEST[1])):
        (other / "images" / folder).mkdir(parents=True)
        write_image(other / "images" / folder / name, pixels(800, 800, 1))
    return {"annotations": notes, "xview": xview, "wo_xview": other}, scenes


def test_every_tile_is_its_window_zero_padded(sources, tmp_path):
    paths, scenes = sources
    report = build_aitod(**paths, out=tmp_path / "out", channel_order="rgb", workers=2)
    assert report.complete and report.wanted == 7 and report.made == 7 and not report.problems
    big, small = scenes["5"], scenes["12"]
    tiles = {
        name: read_image(tmp_path / "out" / "images" / "trainval" / name)
        for name in TRAIN[:3] + VAL
    }
    assert np.array_equal(tiles["5__0_0.png"], big[:800, :800])
    padded = np.zeros((800, 800, 3), np.uint8)
    padded[:, :407] = big[:800, 600:]
    assert np.array_equal(tiles["5__600_0.png"], padded)
    assert np.array_equal(
        tiles["5__207_0.png"], big[:800, 207:]
    )  # begins before the tile before it: kept as listed
    assert (
        np.array_equal(tiles["12__0_0.png"][:500, :640], small)
        and not tiles["12__0_0.png"][500:].any()
    )
    assert np.array_equal(read_image(tmp_path / "out/images/test/5__0_200.png"), big[200:, :800])
    assert any(
        "1 xView scenes have tiles both in trainval and in test" in note for note in report.notes
    )


def test_official_order_exchanges_red_and_blue_of_xview_tiles_alone(sources, tmp_path):
    paths, scenes = sources
    build_aitod(**paths, out=tmp_path / "out")
    tile = read_image(tmp_path / "out/images/trainval/5__0_0.png")
    assert np.array_equal(tile, scenes["5"][:800, :800, ::-1])
    assert np.array_equal(
        read_image(tmp_path / "out/images/trainval" / TRAIN[3]), pixels(800, 800, 1)
    )
    with pytest.raises(DataError, match="started with channel_order=official"):
        build_aitod(**paths, out=tmp_path / "out", channel_order="rgb")
    with pytest.raises(ConfigError, match="official or rgb"):
        build_aitod(**paths, out=tmp_path / "b", channel_order="bgr")


def test_the_result_loads_and_the_annotations_are_the_same_bytes(sources, tmp_path):
    paths, _ = sources
    out = tmp_path / "out"
    build_aitod(**paths, out=out)
    spec = load_data_spec(out)
    assert spec.protocol == "aitod" and set(spec.splits) == {"train", "val", "trainval", "test"}
    index = load_index(spec, "trainval")
    assert len(index) == 5 and index.labels.tolist() == [5] * 5
    assert load_data_spec(out / "data_v2.yaml").splits.keys() == {"trainval"}
    original = (paths["annotations"] / "aitod_test_v1.json").read_bytes()
    assert (out / "annotations" / "aitod_test.json").read_bytes() == original
    for line in (out / "checksums.sha256").read_text().splitlines():
        checksum, name = line.split("  ", 1)
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == checksum
    assert json.loads((out / "build.json").read_text())["state"] == "complete"


def test_built_in_yaml_finds_the_build(sources, tmp_path, monkeypatch):
    paths, _ = sources
    monkeypatch.setenv("RFLA_DATASETS", str(tmp_path / "sets"))
    with pytest.raises(DataError) as error:
        load_index(load_data_spec("aitod"), "test")
    text = str(error.value)
    assert "challenge.xviewdataset.org" in text and "CC BY-NC-SA" in text
    assert f"out={tmp_path / 'sets' / 'aitod'}" in text
    build_aitod(**paths, out=tmp_path / "sets" / "aitod")
    assert len(load_index(load_data_spec("aitod"), "test")) == 2
    assert len(load_index(load_data_spec("aitodv2"), "trainval")) == 5


def test_missing_scenes_are_named_and_a_second_run_goes_on(sources, tmp_path):
    paths, _ = sources
    out, hidden = tmp_path / "out", tmp_path / "5.tif"
    (paths["xview"] / "5.tif").rename(hidden)
    report = build_aitod(**paths, out=out)
    assert not report.complete and report.missing_scenes == {"5": 4}
    assert (
        "scene 5.tif is missing: 4 images need it" in report.table()
        and "NOT complete" in report.table()
    )
    assert not (out / "data.yaml").exists() and "5.tif" in (out / "missing.txt").read_text()
    kept = out / "images/trainval/12__0_0.png"
    before = kept.stat().st_mtime_ns
    (out / "images/trainval/5__0_0.png.77.tmp").write_bytes(b"killed here")
    hidden.rename(paths["xview"] / "5.tif")
    again = build_aitod(**paths, out=out)
    assert again.complete and again.made == 4 and kept.stat().st_mtime_ns == before
    assert (out / "data.yaml").exists() and not (out / "missing.txt").exists()
    assert not list(out.rglob("*.tmp"))


def test_a_finished_build_needs_its_sources_no_more(sources, tmp_path):
    paths, _ = sources
    build_aitod(**paths, out=tmp_path / "out")
    report = build_aitod(paths["annotations"], out=tmp_path / "out")
    assert report.complete and report.made == 0


def test_damaged_file_is_made_anew_and_wrong_size_is_reported(sources, tmp_path):
    paths, _ = sources
    out = tmp_path / "out"
    build_aitod(**paths, out=out)
    (out / "images/trainval/5__0_0.png").write_bytes(b"not a picture")
    broken = build_aitod(**paths, out=out)
    assert not broken.complete and broken.problems[0].startswith("5__0_0.png")
    assert build_aitod(**paths, out=out).complete
    write_image(paths["wo_xview"] / "images/train" / TRAIN[3], pixels(799, 800, 1))
    other = build_aitod(**paths, out=tmp_path / "b")
    assert other.problems == [f"{TRAIN[3]}: 800 x 799 px, annotated as 800 x 800"]


def test_truncated_and_changed_files_are_wrong(sources, tmp_path):
    """A published image whose end is missing, and a tile that has changed since it was made."""
    paths, _ = sources
    published = paths["wo_xview"] / "images/train" / TRAIN[3]
    whole = published.read_bytes()
    published.write_bytes(whole[:3000])
    out = tmp_path / "out"
    (problem,) = build_aitod(**paths, out=out).problems
    assert problem.startswith(TRAIN[3]) and "truncated PNG" in problem
    published.unlink()  # of which the copy may be a hard link
    published.write_bytes(whole)
    assert build_aitod(**paths, out=out).complete
    tile, sums = out / "images/trainval/5__0_0.png", (out / "checksums.sha256").read_text()
    right = tile.read_bytes()
    write_image(tile, pixels(800, 800, 2))
    report = build_aitod(**paths, out=out)
    assert not report.complete and "has changed since it was made" in report.problems[0]
    assert build_aitod(**paths, out=out).complete
    assert tile.read_bytes() == right and (out / "checksums.sha256").read_text() == sums


def test_window_outside_and_unreadable_scene_are_problems_not_crashes(sources, tmp_path):
    paths, _ = sources
    (paths["xview"] / "12.tif").write_bytes(b"II*\0rubbish")
    coco_file(paths["annotations"] / "aitod_test_v1.json", ["5__3000_0.png", "5__0_200.png"])
    report = build_aitod(**paths, out=tmp_path / "out")
    assert any("12__0_0.png" in problem for problem in report.problems)
    assert any("lies outside its scene" in problem for problem in report.problems)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["notes.txt"], "no .json file named after"),
        (
            ["small_trainval_v2_2.0.json", "small_trainval_v2_3.0.json"],
            "both aitodv2_trainval",
        ),  # two releases
    ],
)
def test_annotation_files_that_cannot_be_told_apart(tmp_path, names, message):
    for number, name in enumerate(names):
        (tmp_path / name).write_text(json.dumps({"images": [], "n": number}))
    with pytest.raises(DataError, match=message):
        find_annotations(tmp_path)


def test_refuses_a_directory_that_is_something_else(sources, tmp_path):
    paths, _ = sources
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match="not empty and holds no build"):
        build_aitod(**paths, out=tmp_path / "mine")
    with pytest.raises(DataError, match="no such directory"):
        build_aitod(paths["annotations"], xview=tmp_path / "nowhere", out=tmp_path / "out")


def test_linked_scenes_and_names_with_spaces(sources, tmp_path):
    paths, _ = sources
    linked = tmp_path / "my scenes ü"
    linked.mkdir()
    for scene in paths["xview"].glob("[0-9]*.tif"):
        os.symlink(scene, linked / scene.name)
    report = build_aitod(paths["annotations"], linked, paths["wo_xview"], tmp_path / "out dir")
    assert report.complete
    content = yaml.safe_load(Path(tmp_path / "out dir" / "data.yaml").read_text())
    assert content["trainval"] == {
        "images": "images/trainval",
        "annotations": "annotations/aitod_trainval.json",
    }


def test_from_the_command_line(sources, tmp_path, capsys):
    paths, _ = sources
    tokens = ["format=aitod-xview", f"out={tmp_path / 'out'}", "channel_order=rgb", "workers=1"]

    def run(sources: dict[str, Path]) -> int:
        given = [f"{key}={path}" for key, path in sources.items()]
        return run_convert(load_options([*tokens, *given], ConvertOptions)[0])

    assert run({"annotations": paths["annotations"]}) == 1
    assert "NOT complete" in capsys.readouterr().out
    assert run(paths) == 0
    assert f"complete: train with data={tmp_path / 'out' / 'data.yaml'}" in capsys.readouterr().out
