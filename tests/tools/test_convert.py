"""Whole conversions: what is written, counted and refused; nothing half done looks done."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from rfla.cfg.verbs import ConvertOptions, load_options
from rfla.cli import main
from rfla.data import load_data_spec, load_index
from rfla.data.images import read_image, write_image
from rfla.data.obtain import missing_dataset_message
from rfla.errors import ConfigError, DataError
from rfla.tools.convert import conversion
from rfla.tools.convert.command import run_convert
from rfla.tools.output import check_target, partial_directory


def convert(format: str, source: Path, out: Path, to: str = "coco", **others: Any):
    """Convert with these options, checked as those of the command line are."""
    values = {"format": format, "source": source, "out": out, "to": to} | others
    texts = {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
    return conversion.convert(ConvertOptions.model_validate(texts))


def picture(path, width=60, height=40, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.random.default_rng(seed).integers(1, 255, (height, width, 3), np.uint8))


@pytest.fixture
def visdrone(tmp_path):
    """Two splits; a region, an object, "others", a box over the border, one of no size.

    A name with a space and ü.
    """
    root = tmp_path / "VisDrone"
    lines = (
        "0,0,10,10,0,0,0,0\n20,5,6,4,1,4,0,1\n30,5,6,4,0,11,0,0\n"
        "55,30,20,20,1,1,0,0\n5,5,0,4,1,1,0,0\n"
    )
    for split, stem in (("train", "a ü"), ("train", "b"), ("val", "c")):
        folder = root / f"VisDrone2019-DET-{split}"
        picture(folder / "images" / f"{stem}.jpg")
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"{stem}.txt").write_text(lines if stem != "b" else "")
    return root


def test_visdrone_to_coco_trains_at_once(visdrone, tmp_path):
    out = tmp_path / "sets" / "visdrone"
    report = convert("visdrone", visdrone, out)
    assert report.images == {"train": 2, "val": 1}
    assert report.num_boxes == 4 and report.ignored.sum() == 4 and report.ignored[-1] == 4
    assert report.dropped == {"boxes without width or height": 2}
    assert report.repaired == {"boxes over the border of their image: clipped": 2}
    where = str(visdrone / "VisDrone2019-DET-train" / "annotations" / "a ü.txt")
    assert report.examples["boxes without width or height"] == f"{where}:5"
    spec = load_data_spec(out)
    assert spec.protocol == "visdrone" and spec.names[3] == "car"
    index = load_index(spec, "train")
    assert len(index) == 2 and index.boxes[0].tolist() == [0, 0, 10, 10]
    assert index.labels.tolist() == [-1, 3, -1, 0] and index.ignore.tolist() == [
        True,
        False,
        True,
        False,
    ]
    assert index.boxes[3].tolist() == [55, 30, 60, 40]
    assert json.loads((out / "convert.json").read_text())["images"] == {"train": 2, "val": 1}
    assert sorted(path.name for path in out.iterdir()) == [
        "annotations",
        "convert.json",
        "data.yaml",
        "images",
    ]
    assert "car" in report.table() and "dropped 2: boxes without width or height" in report.table()


def test_yolo_target_says_what_it_cannot_hold(visdrone, tmp_path):
    report = convert("visdrone", visdrone, tmp_path / "out", to="yolo")
    assert report.dropped["ignored boxes (YOLO cannot hold them; to=coco can)"] == 4
    index = load_index(load_data_spec(tmp_path / "out"), "train")
    assert sorted(index.labels.tolist()) == [0, 3]
    assert (tmp_path / "out" / "labels" / "train" / "b.txt").read_text() == ""


@pytest.mark.parametrize("target", ["voc", "visdrone", "dota", "tinyperson", "csv", "soda", "cvat"])
def test_other_targets_are_read_back_by_their_format(visdrone, tmp_path, target):
    convert("visdrone", visdrone, tmp_path / "coco")
    convert("visdrone", visdrone, tmp_path / "out", to=target)
    assert not (tmp_path / "out" / "data.yaml").exists()
    back = convert(target, tmp_path / "out", tmp_path / "back")
    assert back.images == {"train": 2, "val": 1}
    holds_regions = target not in ("voc", "dota", "cvat")
    assert named_boxes(tmp_path / "back") == [
        (name, box) for name, box in named_boxes(tmp_path / "coco") if name or holds_regions
    ]


def named_boxes(out):
    """Class names (none for a region) and boxes of the training images."""
    spec = load_data_spec(out)
    index = load_index(spec, "train")
    names = [spec.names[label] if label >= 0 else "" for label in index.labels]
    assert index.ignore.tolist() == [not name for name in names]
    return list(zip(names, index.boxes.tolist(), strict=True))


def test_xview_is_written_for_its_own_classes(tmp_path):
    source = coco_source(tmp_path / "src", [(10, 12, 8, 6)], name="Small Car")
    convert("coco", source, tmp_path / "out", to="xview")
    back = convert("xview", tmp_path / "out", tmp_path / "back")
    assert back.images == {"train": 1} and back.num_boxes == 1
    with pytest.raises(DataError, match="to=xview: class 'car' is none of the 60"):
        convert(
            "coco", coco_source(tmp_path / "cars", [(10, 12, 8, 6)]), tmp_path / "no", to="xview"
        )
    assert not list(tmp_path.glob("no*"))


def test_outlines_that_are_left_out_are_counted(tmp_path):
    """A quadrangle goes round; a triangle, a mask and a pair of quadrangles leave their boxes."""
    quadrangle = [2, 2, 9, 3, 8, 9, 3, 8]
    outlines = [
        [quadrangle],
        [[2, 2, 9, 2, 5, 9]],
        {"size": [40, 60], "counts": [0, 2400]},
        [quadrangle, quadrangle],
        [],
        [[]],
    ]
    (tmp_path / "src" / "images").mkdir(parents=True)
    picture(tmp_path / "src" / "images" / "a.png")
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [6 * i, 2, 7, 7]}
        | {"segmentation": outline}
        for i, outline in enumerate(outlines, 1)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "ship"}],
    }
    (tmp_path / "src" / "train.json").write_text(json.dumps(content))
    report = convert("coco", tmp_path / "src", tmp_path / "out")
    line = "repaired 3: polygons (other than of four corners) and masks left out, their boxes kept"
    assert line in report.table() and "annotations[1]" in report.table()
    (split,) = report.images
    written = json.loads((tmp_path / "out" / "annotations" / f"{split}.json").read_text())
    kept = [one["segmentation"] for one in written["annotations"] if "segmentation" in one]
    assert kept == [[quadrangle]]
    assert len(written["annotations"]) == 6


def test_split_and_annotations_apart_from_images(visdrone, tmp_path):
    folder = visdrone / "VisDrone2019-DET-train"
    report = convert(
        "visdrone",
        folder / "images",
        tmp_path / "a",
        annotations=folder / "annotations",
        split="minival",
    )
    assert report.images == {"minival": 2}
    assert convert("visdrone", visdrone, tmp_path / "b", split="val").images == {"val": 1}
    with pytest.raises(DataError, match="no split 'vall'; found train, val; did you mean 'val'"):
        convert("visdrone", visdrone, tmp_path / "c", split="vall")


def test_missing_and_unreadable_images_are_dropped_and_named(visdrone, tmp_path):
    images = visdrone / "VisDrone2019-DET-train" / "images"
    (images / "a ü.jpg").unlink()
    report = convert("visdrone", visdrone, tmp_path / "a")
    assert report.dropped["images that are not there"] == 1
    assert report.dropped["boxes of images that are not there"] == 5
    assert "a ü" in report.examples["images that are not there"]
    (images / "b.jpg").write_bytes(b"rubbish")
    report = convert("visdrone", visdrone, tmp_path / "b")
    assert report.dropped["images that cannot be used"] == 1 and report.images == {"val": 1}
    (visdrone / "VisDrone2019-DET-val" / "images" / "c.jpg").unlink()
    unusable = r"none of the annotated images could be used; the first: .*not an image but a text"
    with pytest.raises(DataError, match=unusable):
        convert("visdrone", visdrone, tmp_path / "c")
    (images / "b.jpg").unlink()
    with pytest.raises(DataError, match="none of the annotated images was found; looked in"):
        convert("visdrone", visdrone, tmp_path / "c")
    assert not list(tmp_path.glob("c*"))


@pytest.mark.parametrize("entry", ["./images/a.png", "images/a.png", "{root}/images/a.png"])
def test_yolo_lists_are_converted(tmp_path, entry):
    root = tmp_path / "src"
    picture(root / "images" / "a.png")
    (root / "labels").mkdir()
    (root / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (root / "lists").mkdir()
    (root / "train.txt").write_text(entry.format(root=root) + "\n")
    (root / "data.yaml").write_text("train: train.txt\nnames: [ship]\n")
    report = convert("yolo", root / "data.yaml", tmp_path / "out")
    assert (report.images, report.num_boxes) == ({"train": 1}, 1)


@pytest.mark.parametrize("lists", [True, False])
def test_yolo_images_of_one_name_are_each_found(tmp_path, lists):
    """Two directories, or a list of images elsewhere; a third image of that name is not meant."""
    for seed, place in enumerate(("a", "b", "set")):
        picture(tmp_path / place / "x.png", seed=seed)
        (tmp_path / place / "x.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    entries = [str(tmp_path / place / "x.png") for place in "ab"]
    (tmp_path / "set" / "train.txt").write_text("\n".join(entries))
    train = "train.txt" if lists else json.dumps([str(tmp_path / "a"), str(tmp_path / "b")])
    (tmp_path / "set" / "data.yaml").write_text(f"train: {train}\nnames: [ship]\n")
    source = tmp_path / "set" / "data.yaml"
    if not lists:
        with pytest.raises(DataError, match=r"would both become images/x\.png; rename one of them"):
            convert("yolo", source, tmp_path / "out")
        return
    assert convert("yolo", source, tmp_path / "out").images == {"train": 2}
    written = sorted((tmp_path / "out" / "images").rglob("*.png"))
    assert [path.read_bytes() for path in written] == [Path(name).read_bytes() for name in entries]


def test_an_unreadable_yolo_image_is_dropped_and_named(tmp_path):
    picture(tmp_path / "src" / "a.png")
    (tmp_path / "src" / "b.png").write_bytes(b"rubbish")
    for stem in "ab":
        (tmp_path / "src" / f"{stem}.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    report = convert("yolo", tmp_path / "src", tmp_path / "out")
    assert report.images == {"train": 1} and report.dropped == {"images that cannot be used": 1}
    assert "b.png" in report.examples["images that cannot be used"]


def test_existing_output_is_left_alone(visdrone, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    for ok in (False, True):
        with pytest.raises(DataError, match="is not empty"):
            convert("visdrone", visdrone, out, exist_ok=ok)
    assert (out / "thesis.tex").read_text() == "x"
    with pytest.raises(DataError, match="holds the source"):
        convert("visdrone", visdrone, visdrone.parent, exist_ok=True)
    convert("visdrone", visdrone, tmp_path / "mine", split="val")
    with pytest.raises(DataError, match="exist_ok=true"):
        convert("visdrone", visdrone, tmp_path / "mine")
    assert convert("visdrone", visdrone, tmp_path / "mine", exist_ok=True).images == {
        "train": 2,
        "val": 1,
    }
    assert not list(tmp_path.glob("mine.*"))


def test_nothing_looks_done_after_an_error_or_a_kill(visdrone, tmp_path):
    bad = visdrone / "VisDrone2019-DET-val" / "annotations" / "c.txt"
    good = bad.read_text()
    bad.write_text(good + "oops\n")
    with pytest.raises(DataError, match=r"c\.txt:6: 1 columns"):
        convert("visdrone", visdrone, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
    left = tmp_path / "out.partial"  # as a kill leaves it
    left.mkdir()
    (left / ".rfla").write_text("")
    (left / "data.yaml").write_text("train: nothing")
    bad.write_text(good)
    convert("visdrone", visdrone, tmp_path / "out")
    assert not left.exists() and load_data_spec(tmp_path / "out").names


def test_a_replacement_that_was_killed_is_undone_or_finished(visdrone, tmp_path):
    out, old = tmp_path / "out", tmp_path / "out.old"
    convert("visdrone", visdrone, out)
    shutil.copytree(out, old)
    (old / ".rfla").write_text("")
    shutil.rmtree(out)  # killed between the two renames: the earlier one is put back
    with pytest.raises(DataError, match="is not empty"):
        convert("visdrone", visdrone, out)
    assert (out / "data.yaml").is_file() and not (out / ".rfla").exists() and not old.exists()
    old.mkdir()
    (old / ".rfla").write_text("")  # killed before the earlier one was gone
    convert("visdrone", visdrone, out, exist_ok=True)
    assert not old.exists() and not (out / ".rfla").exists()
    old.mkdir()  # killed before it could be marked: empty, so nobody misses it
    (tmp_path / "out.partial").mkdir()
    convert("visdrone", visdrone, out, exist_ok=True)
    assert not old.exists()
    old.mkdir()  # somebody's own: said before anything is written
    (old / "thesis.tex").write_text("x")
    with pytest.raises(DataError, match=r"out\.old: is in the way"):
        convert("visdrone", visdrone, out, exist_ok=True)
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out", "out.old"]


def test_one_process_at_a_time_writes_to_a_directory(visdrone, tmp_path):
    """The first holds the lock; what it has written so far is not taken for a killed run's."""
    out = tmp_path / "out"
    with partial_directory(out, [visdrone]) as beside:
        (beside / "half").write_text("x")
        with pytest.raises(DataError, match="another process writes there"):
            convert("visdrone", visdrone, out)
        assert (beside / "half").exists()
    assert [path.name for path in out.iterdir()] == ["half"]
    with pytest.raises(DataError, match=r"is not empty; give another directory$"):
        check_target(out, [visdrone], exist_ok=None)
    assert {path.name for path in tmp_path.iterdir()} == {"VisDrone", "out"}


def test_links_to_nothing_are_in_the_way(visdrone, tmp_path):
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(DataError, match=r"out=.*link: is a link to nothing"):
        convert("visdrone", visdrone, tmp_path / "link")
    with pytest.raises(DataError, match="link is no directory"):
        convert("visdrone", visdrone, tmp_path / "link" / "x")


def test_linked_images_are_resolved_and_sources_stay_untouched(visdrone, tmp_path):
    folder = visdrone / "VisDrone2019-DET-val"
    real = tmp_path / "elsewhere" / "x.jpg"
    real.parent.mkdir()
    (folder / "images" / "c.jpg").rename(real)
    os.symlink(real, folder / "images" / "c.jpg")
    convert("visdrone", visdrone, tmp_path / "out", split="val")
    placed = tmp_path / "out" / "images" / "val" / "c.jpg"
    assert placed.is_file() and not placed.is_symlink() and placed.read_bytes() == real.read_bytes()
    assert (folder / "images" / "c.jpg").is_symlink()


def test_a_hostile_name_cannot_leave_the_directory(tmp_path):
    picture(tmp_path / "src" / "images" / "x.png")
    image = {"id": 1, "file_name": "../../images/x.png", "width": 60, "height": 40}
    content = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "car"}]}
    (tmp_path / "src" / "train.json").write_text(json.dumps(content))
    convert("coco", tmp_path / "src", tmp_path / "out")
    assert (tmp_path / "out" / "images" / "train" / "x.png").is_file()


def coco_source(root, boxes, size=(60, 40), stated=None, image_id=41, name="car"):
    picture(root / "images" / "scene.png", *size)
    width, height = stated or size
    image = {"id": image_id, "file_name": "scene.png", "width": width, "height": height}
    annotations = [
        {
            "id": 7 + n,
            "image_id": image_id,
            "category_id": 5,
            "bbox": list(box),
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for n, box in enumerate(boxes)
    ]
    content = {
        "images": [image],
        "annotations": annotations,
        "categories": [{"id": 5, "name": name}],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "train.json").write_text(json.dumps(content))
    return root


def test_coco_ids_are_kept(tmp_path):
    convert("coco", coco_source(tmp_path / "src", [(1, 2, 3, 4), (5, 6, 7, 8)]), tmp_path / "out")
    content = json.loads((tmp_path / "out" / "annotations" / "train.json").read_text())
    assert [image["id"] for image in content["images"]] == [41]
    assert [(a["id"], a["image_id"], a["category_id"]) for a in content["annotations"]] == [
        (7, 41, 5),
        (8, 41, 5),
    ]


def test_ids_that_cannot_be_kept_are_counted(tmp_path):
    source = coco_source(tmp_path / "src", [(1, 2, 3, 4), (5, 6, 7, 8)])
    path = source / "annotations" / "train.json"
    path.write_text(path.read_text().replace('"id": 8', '"id": 7'))
    report = convert("coco", source, tmp_path / "out")
    assert report.repaired == {
        "ids of annotations that repeat or are no whole numbers from 0: all numbered anew": 2
    }
    content = json.loads((tmp_path / "out" / "annotations" / "train.json").read_text())
    assert [a["id"] for a in content["annotations"]] == [1, 2]


@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_boxes_of_resized_images_are_scaled(tmp_path, to):
    """The file has 60 x 40 px; 120 x 80 and 121 x 80 are the same shape, but for rounding."""
    for name, width, right in (("a", 120, 22), ("b", 121, (4 + 40) * 60 / 121)):
        source = coco_source(tmp_path / name, [(4, 2, 40, 6)], stated=(width, 80))
        report = convert("coco", source, tmp_path / f"out{name}", to=to)
        assert report.repaired == {
            "images that were resized after they were annotated: boxes scaled": 1
        }
        index = load_index(load_data_spec(tmp_path / f"out{name}"), "train")
        assert index.image_hw.tolist() == [[40, 60]] and index.boxes[0, 1::2].tolist() == [1, 4]
        assert index.boxes[0, 2] == pytest.approx(right, abs=1e-4)


@pytest.mark.parametrize("stated", [(40, 60), (60, 60)])
def test_images_of_another_shape_than_stated_are_left_out(tmp_path, stated):
    with pytest.raises(
        DataError,
        match=r"the annotated images could be used; the first: scene\.png: [46]0 x 60 stated",
    ):
        convert(
            "coco", coco_source(tmp_path / "b", [(1, 2, 3, 4)], stated=stated), tmp_path / "outb"
        )


@pytest.mark.parametrize("to", ["coco", "yolo"])
def test_boxes_drawn_before_the_exif_orientation_keep_their_pixels(tmp_path, to):
    source = coco_source(tmp_path / "src", [(1, 2, 30, 4)])
    image = read_image(source / "images" / "scene.png")
    exif = PillowImage.Exif()
    exif[0x0112] = 6  # a quarter turn: viewers show 40 x 60
    PillowImage.fromarray(image).save(source / "images" / "scene.jpg", exif=exif, quality=95)
    (source / "images" / "scene.png").unlink()
    report = convert("coco", source, tmp_path / "out", to=to)
    assert report.repaired == {
        "images found under another path than the one written": 1,  # .jpg for .png
        "images annotated before their EXIF orientation: pixels as stored written as PNG": 1,
    }
    index = load_index(load_data_spec(tmp_path / "out"), "train")
    assert read_image(index.paths[0]).shape == image.shape and index.boxes.round(4).tolist() == [
        [1, 2, 31, 6]
    ]


def test_files_that_are_cut_off_are_left_out(tmp_path):
    for name in ("a.jpg", "b.png", "c.png"):
        picture(tmp_path / "src" / name)
        (tmp_path / "src" / name).with_suffix(".txt").write_text("0 0.5 0.5 0.1 0.1\n")
    for name in ("a.jpg", "b.png"):
        data = (tmp_path / "src" / name).read_bytes()
        (tmp_path / "src" / name).write_bytes(data[: len(data) // 2])
    report = convert("yolo", tmp_path / "src", tmp_path / "out")
    assert (
        report.images == {"train": 1}
        and "truncated JPEG" in report.examples["images that cannot be used"]
    )
    assert report.dropped == {
        "images that cannot be used": 2,
        "boxes of images that cannot be used": 2,
    }


def test_tiles_show_the_same_pixels_and_boxes(tmp_path):
    source = coco_source(tmp_path / "src", [(10, 12, 8, 6), (75, 45, 10, 10)], size=(180, 110))
    report = convert(
        "coco", source, tmp_path / "out", tile=100, overlap=20, keep_visible=0.6, empty_tiles=0
    )
    scene = read_image(source / "images" / "scene.png")
    index = load_index(load_data_spec(tmp_path / "out"), "train")
    assert (
        report.images["train"] == len(index) == 2
        and report.dropped["tiles without objects (empty_tiles)"] == 2
    )
    assert report.num_boxes == 4  # both boxes are whole in both tiles of the left column
    content = json.loads((tmp_path / "out" / "annotations" / "train.json").read_text())
    for row, image in enumerate(content["images"]):
        x1, y1, x2, y2 = image["window"]
        tile = read_image(index.paths[row])
        assert image["file_name"] == f"scene__{x1}_{y1}.png" and tile.shape == (100, 100, 3)
        assert np.array_equal(tile, scene[y1:y2, x1:x2])
        boxes = index.boxes[index.rows_of(row)] + np.array([x1, y1, x1, y1])
        assert boxes.tolist() == [[10, 12, 18, 18], [75, 45, 85, 55]]
    assert len({a["id"] for a in content["annotations"]}) == len(content["annotations"])
    all_tiles = convert("coco", source, tmp_path / "all", tile=100, overlap=20)
    assert (
        all_tiles.images["train"] == 4 and all_tiles.num_boxes == 6
    )  # half of the second box in the right column


def test_tinyperson_corners_become_tiles_of_their_picture(tmp_path):
    picture(tmp_path / "src" / "images" / "p.png", 100, 50)
    images = [
        {
            "id": n,
            "file_name": "labeled_images/p.png",
            "width": 60,
            "height": 50,
            "corner": [x, 0, x + 60, 50],
        }
        for n, x in enumerate((0, 40))
    ]
    box = {
        "id": 9,
        "image_id": 1,
        "category_id": 1,
        "bbox": [10, 5, 4, 8],
        "ignore": False,
        "uncertain": True,
    }
    content = {"images": images, "annotations": [box, box | {"id": 3, "uncertain": False}]}
    content["categories"] = [{"id": 1, "name": "person"}]
    (tmp_path / "src" / "train.json").write_text(json.dumps(content))
    convert("tinyperson", tmp_path / "src", tmp_path / "out")
    index = load_index(load_data_spec(tmp_path / "out"), "train")
    parent = read_image(tmp_path / "src" / "images" / "p.png")
    assert [os.path.basename(path) for path in index.paths] == ["p__0_0.png", "p__40_0.png"]
    assert np.array_equal(read_image(index.paths[1]), parent[:, 40:])
    assert index.boxes.tolist() == [[10, 5, 14, 13]] * 2 and index.ignore.tolist() == [True, False]
    kept = json.loads((tmp_path / "out" / "annotations" / "train.json").read_text())
    assert [a["id"] for a in kept["annotations"]] == [9, 3] and [
        i["id"] for i in kept["images"]
    ] == [0, 1]


def test_one_name_for_two_images_is_refused(tmp_path):
    for number, folder in enumerate(("images", "Images")):
        picture(tmp_path / "src" / folder / "a.png", seed=number)
    rows = "image,xmin,ymin,xmax,ymax\nimages/a.png,1,1,5,5\nImages/a.png,1,1,5,5\n"
    (tmp_path / "src" / "train.csv").write_text(rows)
    with pytest.raises(DataError, match=r"would both become images/a\.png"):
        convert("csv", tmp_path / "src", tmp_path / "out")


@pytest.mark.parametrize(
    ("to", "clash"),
    [
        ("coco", 0),
        ("csv", 0),
        ("soda", 0),
        ("cvat", 0),
        ("yolo", 1),
        ("voc", 2),
        ("visdrone", 2),
        ("dota", 2),
    ],
)
def test_two_images_never_share_a_label_file(tmp_path, to, clash):
    """x.jpg and x.png have one label file in YOLO.

    S/x.png too in the formats without directories; in COCO none has.
    """
    names = ["x.jpg", "y.png", ("z.png", "x.png", "s/x.png")[clash]]
    for count, wanted in ((2, True), (3, clash == 0)):
        root = tmp_path / str(count)
        for name in names[:count]:
            picture(root / "images" / name)
        images = [
            {"id": n, "file_name": name, "width": 60, "height": 40}
            for n, name in enumerate(names[:count])
        ]
        content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "car"}]}
        (root / "train.json").write_text(json.dumps(content))
        if wanted:
            assert convert("coco", root, tmp_path / f"out{count}", to=to).images == {"train": count}
        else:
            with pytest.raises(
                DataError, match=r"would both become the label file of x; rename one"
            ):
                convert("coco", root, tmp_path / f"out{count}", to=to)


def test_tiles_of_images_that_differ_in_their_suffix_alone_are_refused(tmp_path):
    for name in ("x.jpg", "x.png"):
        picture(tmp_path / "src" / "images" / name)
    images = [{"id": n, "file_name": name} for n, name in enumerate(("x.jpg", "x.png"))]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "car"}]}
    (tmp_path / "src" / "train.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"would both become images/x__0_0\.png"):
        convert("coco", tmp_path / "src", tmp_path / "out", tile=32)


def test_voc_images_are_found_by_the_stem_and_by_what_is_stated(tmp_path):
    """Files are renamed together with their images; `filename` inside is left behind."""
    for stem, stated, image in (("0001", "old.jpg", "0001.png"), ("0002", "b 2.png", "b 2.png")):
        picture(tmp_path / "src" / image)
        (tmp_path / "src" / f"{stem}.xml").write_text(
            f"<annotation><filename>{stated}</filename></annotation>"
        )
    (tmp_path / "src" / "old.jpg").write_bytes((tmp_path / "src" / "0001.png").read_bytes())
    (tmp_path / "src" / "0003.xml").write_text(
        "<annotation><filename>c.png</filename></annotation>"
    )
    report = convert("voc", tmp_path / "src", tmp_path / "out", names=["car"])
    content = json.loads((tmp_path / "out" / "annotations" / "train.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["0001.png", "b 2.png"]
    assert report.dropped == {"images that are not there": 1}


@pytest.mark.parametrize(
    ("area", "reported", "written"),
    [
        (30.2, 0, 30.2),  # 5.49 x 5.5 is 30.195, rounded to one decimal
        (30.6, 0, 30.6),  # within the rounding to a whole number
        (20, 0, 20),  # of an object that does not fill its box
        (60, 1, 30.195),
        (0, 1, 30.195),
    ],
)
def test_areas_are_judged_within_their_rounding(tmp_path, area, reported, written):
    picture(tmp_path / "src" / "images" / "a.png")
    entry = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 5.49, 5.5], "area": area}
    images = [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}]
    content = {"images": images, "annotations": [entry], "categories": [{"id": 1, "name": "car"}]}
    (tmp_path / "src" / "train.json").write_text(json.dumps(content))
    report = convert("coco", tmp_path / "src", tmp_path / "out")
    assert report.repaired.total() == reported
    kept = json.loads((tmp_path / "out" / "annotations" / "train.json").read_text())
    assert kept["annotations"][0]["area"] == pytest.approx(written)


def test_whole_images_that_training_would_refuse_are_pointed_out(tmp_path, monkeypatch):
    picture(tmp_path / "src" / "a.png")
    (tmp_path / "src" / "train.csv").write_text("image,xmin,ymin,xmax,ymax\na.png,1,1,5,5\n")
    report = convert("csv", tmp_path / "src", tmp_path / "out", max_pixels=60 * 40 - 1)
    assert "1 images are larger than max_pixels" in report.table()
    assert "cut tiles with tile=800" in report.warnings()[0]
    monkeypatch.setattr("rfla.data.image_header.MAX_PIXELS", 60 * 40)
    assert not convert("csv", tmp_path / "src", tmp_path / "b", max_pixels=60 * 40).warnings()


@pytest.mark.filterwarnings("error")
def test_huge_numbers_are_clipped_or_refused_in_one_line(tmp_path):
    picture(tmp_path / "src" / "a.png")
    head = "image,xmin,ymin,xmax,ymax,annotation_id\n"
    rows = f"a.png,-1e308,1,1e308,5,{'9' * 5000}\na.png,1,1,5,5,{2**70}\n"
    (tmp_path / "src" / "train.csv").write_text(head + rows)
    report = convert("csv", tmp_path / "src", tmp_path / "out")
    assert report.num_boxes == 2
    assert load_index(load_data_spec(tmp_path / "out"), "train").boxes[0].tolist() == [0, 1, 60, 5]
    (tmp_path / "src" / "train.csv").write_text(head + f"a.png,1,1,{'9' * 5000},5,1\n")
    with pytest.raises(DataError, match="is not a finite number"):
        convert("csv", tmp_path / "src", tmp_path / "b")


def options_of(*tokens: str) -> ConvertOptions:
    return load_options(tokens, ConvertOptions)[0]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ("", "format=None: formats are coco, yolo"),
        ("format=visdrone", "needs source="),
        ("format=visdron source=. out=x", "did you mean 'visdrone'"),
        ("format=coco sorce=.", "unknown key 'sorce'; did you mean source"),
        ("format=coco source=. out=x tile=big", "tile=big: must be a whole number"),
        ("format=coco source=. out=x tile=5", "tile=5: must be 0"),
        ("format=coco source=. out=x tile=100 overlap=100", "less than tile=100"),
        ("format=coco source=. out=x overlap=10", "less than tile=0"),
        ("format=coco source=. out=x keep_visible=2", "keep_visible=2: must be a number from 0 to"),
        ("format=coco source=. out=x empty_tiles=nan", "empty_tiles=nan: must be a number from 0"),
        ("format=coco source=. out=x exist_ok=maybe", "exist_ok=maybe: must be true"),
        ("format=coco source=. out=x to=coc", "did you mean 'coco'"),
        ("format=coco source=. out=x names=a,b", "states its classes itself"),
        ("format=voc source=. out=x names=a,a", "a name is given twice"),
        ("format=coco source=. out=x xview=y", "xview=: does not go with format=coco"),
        ("format=coco source=. out=x channel_order=rgb", "channel_order=: does not go with"),
        ("format=aitod-xview out=x", "needs annotations="),
        ("format=aitod-xview out=x annotations=. tile=800", "tile=: does not go with format=aitod"),
        ("format=aitod-xview out=x annotations=. channel_order=bgr", "one of official, rgb"),
        ("format=coco source= out=x", "source"),
    ],
)
def test_options_that_make_no_sense(tokens, message):
    with pytest.raises(ConfigError, match=message):
        run_convert(options_of(*tokens.split()))


def test_run_convert_prints_the_summary(visdrone, tmp_path, capsys):
    tokens = ["format=visdrone", f"source={visdrone}", f"out={tmp_path / 'out'}", "tile=32"]
    assert run_convert(options_of(*tokens, "overlap=8", "workers=2", "empty_tiles=0.5")) == 0
    printed = capsys.readouterr().out
    assert "pedestrian" in printed and f"written to {tmp_path / 'out'}" in printed


def test_names_from_the_command_line_or_a_file(tmp_path):
    picture(tmp_path / "src" / "a.png")
    (tmp_path / "src" / "a.txt").write_text("1 0.5 0.5 0.1 0.1\n")
    (tmp_path / "names").write_text("air plane\nship\n")
    for names, out in (("[car, 'bus']", "a"), (str(tmp_path / "names"), "b")):
        tokens = ["format=yolo", f"source={tmp_path / 'src'}", f"out={tmp_path / out}"]
        assert run_convert(options_of(*tokens, f"names={names}")) == 0
    assert load_data_spec(tmp_path / "a").names == ("car", "bus")
    assert load_data_spec(tmp_path / "b").names == ("air plane", "ship")


@pytest.mark.parametrize(
    "name", ["aitod", "aitodv2", "visdrone", "dota2", "tinyperson", "sodad", "xview"]
)
def test_every_public_data_set_says_how_to_obtain_it(name, tmp_path, monkeypatch):
    monkeypatch.setenv("RFLA_DATASETS", str(tmp_path / "my sets"))
    spec = load_data_spec(name)
    with pytest.raises(DataError) as error:
        load_index(spec, "train")
    text = str(error.value)
    assert "https://" in text and "Licence: " in text and "RFLA_DATASETS" in text
    assert f"out='{tmp_path / 'my sets' / spec.root.name}'" in text
    command = next(line for line in text.splitlines() if line.strip().startswith("rfla convert"))
    keys = [word.split("=")[0] for word in command.replace(f"'{spec.root}'", "X").split()[2:]]
    assert set(keys) <= {
        "format",
        "source",
        "out",
        "tile",
        "overlap",
        "annotations",
        "xview",
        "wo_xview",
    }


def test_missing_data_without_advice():
    text = missing_dataset_message("mine", Path("root"), Path("x"), {})
    assert (
        text == "data=mine: x does not exist; set `path:` in the data YAML, or the directory "
        "RFLA_DATASETS"
    )


@pytest.mark.slow
def test_100_000_visdrone_boxes(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "src"
    picture(folder / "images" / "0.jpg", 1360, 765)
    (folder / "annotations").mkdir()
    for number in range(400):
        if number:
            os.link(folder / "images" / "0.jpg", folder / "images" / f"{number}.jpg")
        corners = rng.integers(0, 700, (250, 2))
        sides, classes = rng.integers(2, 40, (250, 2)), rng.integers(0, 12, 250)
        rows = [
            f"{x},{y},{w},{h},{int(0 < c < 11)},{c},0,1"
            for (x, y), (w, h), c in zip(corners, sides, classes, strict=True)
        ]
        (folder / "annotations" / f"{number}.txt").write_text("\n".join(rows))
    report = convert("visdrone", folder, tmp_path / "out")
    assert report.num_boxes + report.ignored.sum() == 100_000


def test_images_of_any_name_are_converted(tmp_path):
    """A name that is no UTF-8 gets a mark in each such place; no JSON or text file holds it."""
    raw = os.fsdecode(b"bad\xff name\x1b.png")
    picture(tmp_path / "src" / "images" / raw)
    rows = "0 0.5 0.5 0.2 0.2\n"
    (tmp_path / "src" / "labels").mkdir()
    (tmp_path / "src" / "labels" / raw).with_suffix(".txt").write_text(rows)
    for to in ("coco", "yolo", "csv", "voc", "cvat"):
        report = convert("yolo", tmp_path / "src", tmp_path / to, to=to)
        assert report.images == {"train": 1}
        (written,) = (tmp_path / to / "images").rglob("*.png")
        assert written.name == "bad\ufffd name\x1b.png"
    assert len(load_index(load_data_spec(tmp_path / "coco"), "train").boxes) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pipe.json", "is a named pipe; a file is needed"),
        ("loop.json", "no such file"),
        ("text.voc", "is a file; this format is read from a directory"),
    ],
)
def test_a_source_of_another_kind_is_named_for_what_it_is(tmp_path, name, message):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    (tmp_path / "text.voc").write_text("x")
    format = "voc" if name.endswith("voc") else "coco"
    with pytest.raises(DataError, match=message):
        convert(format, tmp_path / name, tmp_path / "out")
    if format == "coco":
        with pytest.raises(DataError, match=message if "pipe" in name else "no such"):
            load_data_spec(tmp_path / name)


@pytest.mark.parametrize("broken", ["copy", "annotations"])
def test_a_full_disk_is_told_with_the_file_that_did_not_fit(tmp_path, monkeypatch, capsys, broken):
    """Not with the image that was to be copied, and nothing stays."""
    picture(tmp_path / "src" / "images" / "a.png")
    (tmp_path / "src" / "train.csv").write_text("image,xmin,ymin,xmax,ymax\na.png,1,1,5,5\n")

    def full(source, target, *_):
        raise OSError(28, "No space left on device", str(source), None, str(target))

    def full_file(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    if broken == "copy":
        monkeypatch.setattr("shutil.copyfile", full)
    else:
        monkeypatch.setattr("rfla.data.formats.coco_write._dump", full_file)
    tokens = ["format=csv", f"source={tmp_path / 'src'}", f"out={tmp_path / 'out'}"]
    assert main(["convert", *tokens]) == 2
    place = "out.partial/images/train/a.png.tmp" if broken == "copy" else "out.partial"
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/{place}: No space left on device")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["src"]


def test_images_without_a_suffix_get_theirs(tmp_path: Path) -> None:
    """A PNG called `noext`, and one whose name holds a backslash of Windows."""
    (tmp_path / "src" / "images").mkdir(parents=True)
    pixels = np.full((20, 30, 3), 99, np.uint8)
    write_image(tmp_path / "whole.png", pixels)
    names = ("noext", "a\\b.png")
    for name in names:
        shutil.copy(tmp_path / "whole.png", tmp_path / "src" / "images" / name)
    images = [
        {"id": number, "file_name": name, "width": 30, "height": 20}
        for number, name in enumerate(names)
    ]
    box = {"bbox": [1, 2, 9, 9], "area": 81, "category_id": 1, "iscrowd": 0}
    boxes = [box | {"id": number, "image_id": number} for number in range(2)]
    (tmp_path / "src" / "annotations").mkdir()
    (tmp_path / "src" / "annotations" / "train.json").write_text(
        json.dumps(
            {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "ship"}]}
        )
    )
    for target in ("yolo", "coco"):
        convert("coco", tmp_path / "src", tmp_path / target, to=target)
        assert (tmp_path / target / "images" / "train" / "a" / "b.png").is_file()
        assert (tmp_path / target / "images" / "train" / "noext.png").is_file()
        assert len(load_index(load_data_spec(tmp_path / target), "train")) == 2


def test_annotations_that_list_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,x1,y1,x2,y2,label\n")
    with pytest.raises(DataError, match="its annotations list no image"):
        convert("csv", tmp_path / "a.csv", tmp_path / "out")
