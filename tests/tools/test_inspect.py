"""`rfla inspect`: every planted fault is found and judged.

The repaired copy is clean, the source untouched.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from rfla.cfg.verbs import InspectOptions
from rfla.data import load_data_spec
from rfla.data.images import read_image
from rfla.data.index import load_index
from rfla.errors import ConfigError, DataError
from rfla.tools.inspect import inspect, inspect_data
from rfla.tools.inspect.data_report import DataReport
from rfla.tools.inspect.image_summary import scene_of_tile, similar_pairs, summarize_images


def options_of(data: Path, **others: Any) -> InspectOptions:
    values = {"data": data, "workers": 2} | others
    texts = {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
    return InspectOptions.model_validate(texts)


def findings(report: DataReport, split: str) -> dict[str, tuple[str, int]]:
    return {
        finding.what: (finding.severity, finding.count)
        for finding in report.findings.get(split, [])
    }


def found(report: DataReport, split: str, start: str) -> tuple[str, int]:
    (match,) = [value for what, value in findings(report, split).items() if what.startswith(start)]
    return match


@pytest.fixture
def faulty(coco) -> Path:
    """Train with one of each fault, and a val split that shares an image."""
    root = coco(
        [
            [
                (5, 5, 10, 10, 3),
                (5, 5, 10, 10, 3),
                (5, 5, 0, 4, 3),
                (9, 9, 0.5, 4, 7),
                (55, 5, 10, 10, 7),
                (90, 5, 4, 4, 7),
            ],
            [(5, 5, 10, 10, 3)],
            [(5, 5, 10, 10, 3)],
            [],
            [(5, 5, 10, 10, 99)],
        ]
    )
    coco([[(5, 5, 10, 10, 3)]], split="val", first=50)
    (root / "images/train_1.png").write_bytes(b"no image")
    (root / "images/train_2.png").write_bytes((root / "images/val_0.png").read_bytes())
    cv2.imwrite(
        str(root / "images/train_3.png"), np.zeros((80, 120, 3), np.uint8)
    )  # stated 40 x 60
    return root


def test_every_fault_is_found(faulty: Path):
    report = inspect_data(load_data_spec(faulty))
    expected = {
        "images that cannot be used": ("error", 1),
        "images that were resized": ("warning", 1),
        "rows that training refuses": ("error", 1),
        "boxes of zero width": ("warning", 1),
        "boxes under 1 px": ("warning", 1),
        "boxes outside their image": ("warning", 1),
        "boxes over the border": ("warning", 1),
        "repeated boxes": ("warning", 1),
        "images without boxes": ("note", 2),
    }
    for what, value in expected.items():
        assert found(report, "train", what) == value, what
    assert found(report, "", "images of val are in train too") == ("error", 1)
    assert found(report, "val", "classes without a box") == ("warning", 1)
    assert not report.safe and report.exit_code == 1
    text = report.text()
    assert (
        "NOT safe to train on" in text
        and "train_1.png: not an image" in text
        and "boxes by size" in text
    )


def test_a_sound_set_is_safe(coco):
    root = coco([[(5, 5, 10, 10, 3)], [(5, 5, 10, 10, 7)]])
    coco([[(5, 5, 10, 10, 3), (20, 20, 5, 5, 7)]], split="val", first=50)
    report = inspect_data(load_data_spec(root))
    assert report.findings == {} and report.safe and report.exit_code == 0
    assert "safe to train on" in report.text()


def test_a_split_that_training_needs_is_missed(coco):
    root = coco([[(5, 5, 9, 9, 3)]])
    coco([[(5, 5, 9, 9, 3)]], split="val", first=50)
    (root / "annotations/train.json").rename(root / "annotations/trian.json")
    report = inspect_data(load_data_spec(root))
    start = "split that training reads is missing: "
    assert found(report, "", f"{start}train, beside ")[0] == "error"
    assert "did you mean 'trian'?" in report.text() and not report.safe
    assert not inspect_data(load_data_spec(root), "trian").findings.get("")


def test_bad_yolo_rows_are_all_counted(yolo):
    path = yolo(["0 .5 .5 .1 .1\n9 .5 .5 .1 .1\n0 .5\n", "0 50 50 5 5\n"])
    report = inspect_data(load_data_spec(path), split="train")
    assert found(report, "train", "rows that training refuses") == ("error", 3)
    assert "0.txt:2: class 9" in report.text()


def test_every_copy_of_an_image_of_another_split_is_left_out_of_train(coco, tmp_path: Path):
    """Two files of train hold one picture of val: both go, and the copy is safe."""
    root = coco([[(5, 5, 10, 10, 3)]] * 3)
    coco([[(5, 5, 10, 10, 7)]], split="val", first=50)
    for number in (0, 2):
        (root / f"images/train_{number}.png").write_bytes((root / "images/val_0.png").read_bytes())
    report = inspect(
        options_of(root, fix=True, out=str(tmp_path / "fixed"), project=str(tmp_path / "runs"))
    )
    assert report.repairs == {"images of train that another split holds too left out": 2}
    assert (
        "repaired copy: 2 images of train" in report.text() and "fixed/data.yaml" in report.text()
    )
    assert inspect_data(load_data_spec(tmp_path / "fixed")).safe


def test_annotation_ids_that_repeat(coco):
    root = coco([[(5, 5, 10, 10, 3), (20, 20, 9, 9, 3, {"id": 1})]])
    report = inspect_data(load_data_spec(root))
    assert (
        found(report, "train", "annotations with the id of another") == ("warning", 1)
        and report.safe
    )


def test_ignored_boxes_are_no_objects_in_the_tables(coco):
    root = coco(
        [
            [(5, 5, 10, 10, 3), (20, 20, 9, 9, 3, {"ignore": 1}), (0, 0, 30, 30, -1)],
            [(1, 1, 4, 4, 7)],
        ]
    )
    report = inspect_data(load_data_spec(root))
    assert found(report, "train", "boxes of category 0 or -1") == ("note", 1)
    lines = [line.split() for line in report.text().splitlines()]
    assert ["ship", "1", "1", "10.0", "10.0", "10.0"] in lines and [
        "8",
        "to",
        "16",
        "1",
        "#" * 24,
    ] in lines
    assert ["1", "1", "#" * 24] in lines  # one image with one box


def test_a_split_that_cannot_be_read_does_not_hide_the_others(coco):
    root = coco([[(5, 5, 10, 10, 3)]])
    coco([[]], split="val")
    (root / "annotations/val.json").write_text("{")
    report = inspect_data(load_data_spec(root))
    assert list(report.splits) == ["train"] and found(
        report, "val", "split that cannot be read"
    ) == ("error", 1)
    (root / "annotations/train.json").write_text("{")
    with pytest.raises(DataError, match=r"train\.json:1: not valid JSON"):
        inspect_data(load_data_spec(root))


def test_pictures_and_the_verb(coco, tmp_path: Path):
    root = coco([[(5, 5, 10, 10, 3)], [(5, 5, 10, 10, 7)]])
    options = options_of(root, project=str(tmp_path / "runs"))
    first, second = inspect(options), inspect(options)
    assert [path.parent.name for path in (first.pictures[0], second.pictures[0])] == [
        "inspect",
        "inspect2",
    ]
    assert {path.name for path in first.pictures} == {"mosaic_train.jpg", "labels_train.png"}
    assert all(read_image(path).std() > 5 for path in first.pictures)
    assert "verdict: safe" in first.text()
    with pytest.raises(DataError, match="say where with out=DIR"):
        inspect(options.model_copy(update={"fix": True}))


def test_the_repaired_copy_is_clean_and_the_source_untouched(faulty: Path, tmp_path: Path):
    def state() -> dict[str, str]:
        return {
            str(path): hashlib.sha1(path.read_bytes()).hexdigest()
            for path in faulty.rglob("*")
            if path.is_file()
        }

    before = state()
    out = tmp_path / "copy"
    report = inspect(options_of(faulty, fix=True, out=str(out), project=str(tmp_path / "runs")))
    assert state() == before and report.repaired == out
    again = inspect_data(load_data_spec(out))
    assert again.safe and found(again, "train", "boxes under 1 px") == ("warning", 1)
    assert len(findings(again, "train")) == 2 and found(again, "train", "images without boxes") == (
        "note",
        2,
    )
    index = load_index(load_data_spec(out), "train")
    assert index.image_ids.tolist() == [1, 4, 5] and index.boxes.tolist() == [
        [5, 5, 15, 15],
        [9, 9, 9.5, 13],
        [55, 5, 60, 15],
    ]
    assert (
        json.loads((out / "repairs.json").read_text())["images that cannot be used left out"] == 1
    )
    with pytest.raises(DataError, match="is not empty"):
        inspect(options_of(faulty, fix=True, out=str(out), project=str(tmp_path / "runs")))


def test_images_of_another_size_than_stated(coco, tmp_path: Path):
    """40 x 60 px stated: twice that is the same picture resized, 50 x 70 is not.

    Sizes agree in the copy.
    """
    root = coco([[(5, 5, 10, 10, 3), (7, 2, 3, 3, 7)], [(5, 5, 10, 10, 3)]])
    cv2.imwrite(str(root / "images/train_0.png"), np.zeros((80, 120, 3), np.uint8))
    cv2.imwrite(str(root / "images/train_1.png"), np.zeros((50, 70, 3), np.uint8))
    report = inspect(
        options_of(root, fix=True, out=str(tmp_path / "copy"), project=str(tmp_path / "runs"))
    )
    assert found(report, "train", "images that were resized") == ("warning", 1)
    assert found(report, "train", "images that cannot be used") == ("error", 1)
    assert "train_1.png: 70 x 50 px, but its annotations state 60 x 40" in report.text()
    index = load_index(load_data_spec(tmp_path / "copy"), "train")
    assert index.image_hw.tolist() == [[80, 120]] and index.area.tolist() == [400, 36]
    assert index.boxes.tolist() == [[10, 10, 30, 30], [14, 4, 20, 10]]


def test_nearly_identical_images_between_splits(coco):
    root = coco([[(5, 5, 10, 10, 3)]] * 2, size=(200, 300))
    coco([[(5, 5, 10, 10, 3)]] * 2, split="val", size=(200, 300), first=50)
    rng = np.random.default_rng(0)
    smooth = cv2.resize(
        rng.integers(0, 255, (9, 9, 3), np.uint8), (300, 200), interpolation=cv2.INTER_CUBIC
    )
    cv2.imwrite(str(root / "images/train_0.png"), smooth)
    noisy = np.clip(smooth.astype(int) + rng.normal(2, 3, smooth.shape), 0, 255).astype(np.uint8)
    cv2.imwrite(str(root / "images/val_1.png"), noisy)
    spec = load_data_spec(root)
    images = [summarize_images(load_index(spec, split), 1) for split in ("train", "val")]
    assert similar_pairs(*images) == [(0, 1)]
    assert found(inspect_data(spec), "", "pairs of nearly identical images") == ("warning", 1)


@pytest.mark.parametrize(
    ("name", "parent"),
    [
        ("1234__600_1200.png", "1234"),  # AI-TOD from xView
        ("P0706__1.0__0___1800.png", "P0706"),  # DOTA
        ("P0706__1__-20___1800.png", "P0706"),
        ("algiers_0_512.jpg", "algiers"),
        ("0000002_00005_d_0000014.jpg", None),  # VisDrone: frames, not tiles
        ("DJI_0005-0019.jpg", None),
        ("a__b.png", None),
        ("plain.png", None),
    ],
)
def test_parents_by_tile_name(name: str, parent: str | None):
    assert scene_of_tile(f"/x/{name}") == parent


def test_shared_parents_are_said(coco):
    root = coco([[(5, 5, 10, 10, 3), (5, 25, 10, 10, 7)]])
    coco([[(5, 5, 10, 10, 3), (5, 25, 10, 10, 7)]], split="test", first=50)
    for split, name in (("train", "12__0_0.png"), ("test", "12__600_0.png")):
        (root / f"images/{split}_0.png").rename(root / "images" / name)
        path = root / f"annotations/{split}.json"
        path.write_text(path.read_text().replace(f"{split}_0.png", name))
    report = inspect_data(load_data_spec(root))
    assert (
        found(report, "", "scenes, by the names of their tiles") == ("warning", 1) and report.safe
    )


def test_objects_that_training_shrinks_are_counted_with_what_to_type(coco):
    """`imgsz` as it is given, or as the data set recommends it."""
    root = coco([[(0, 5, 8, 8, 3), (20, 5, 16, 16, 7)]], size=(100, 200))
    coco([[(0, 5, 8, 8, 3), (20, 5, 16, 16, 7)]], split="val", size=(100, 200), first=9)
    (root / "data.yaml").write_text(
        "train: {images: images, annotations: annotations/train.json}\n"
        "val: {images: images, annotations: annotations/val.json}\nsettings: {imgsz: 64}\n"
    )
    report = inspect(options_of(root / "data.yaml", project=root / "runs"))
    expected = "of 2 objects shrink below 4 px at imgsz=64"
    for split in ("train", "val"):
        assert found(report, split, expected) == ("warning", 1)
    assert "imgsz=128 prevents this" in report.text()
    assert report.verdict() == "safe to train on; read the warnings above first"
    larger = inspect(options_of(root / "data.yaml", imgsz=128, project=root / "runs"))
    assert larger.safe and larger.findings == {}


def test_images_of_16_bits_and_further_pages_are_reported(coco):
    root = coco([[(5, 5, 10, 10, 3), (5, 20, 10, 10, 7)]] * 3)
    of_12_bits = np.random.default_rng(0).integers(0, 4096, (40, 60)).astype(np.uint16)
    PillowImage.fromarray(of_12_bits).save(root / "images/train_0.png")
    PillowImage.fromarray(np.full((40, 60), 4097, np.uint16)).save(root / "images/train_1.png")
    pages = [PillowImage.fromarray(of_12_bits.astype(np.uint8))] * 3
    pages[0].save(root / "images/train_2.png", format="TIFF", save_all=True, append_images=pages)
    report = inspect_data(load_data_spec(root))
    assert (
        found(
            report, "train", "16-bit images looked at: the highest value is 4,097, so 0 to 8,191"
        )[1]
        == 2
    )
    assert found(report, "train", "images that use less than a hundredth") == ("warning", 1)
    assert found(report, "train", "images of several pages or frames") == ("note", 1)


def test_boxes_are_judged_as_training_sees_them(coco) -> None:
    """At 60 x 40 px: two boxes that are one when clipped, and one of which 0.5 px is left."""
    root = coco([[(50, 5, 20, 10, 3), (50, 5, 30, 10, 3), (59.5, 20, 10, 10, 3), (9, 9, 9, 9, 7)]])
    coco([[(5, 5, 10, 10, 3)]], split="val", first=50)
    report = inspect_data(load_data_spec(root))
    assert found(report, "train", "repeated boxes") == ("warning", 1)
    assert found(report, "train", "boxes under 1 px") == ("warning", 1)
    assert found(report, "train", "boxes over the border") == ("warning", 2)
    assert len(load_index(load_data_spec(root), "train", for_training=True).boxes) == 2


def test_the_range_that_a_data_set_states_is_taken(coco) -> None:
    root = coco([[(5, 5, 10, 10, 3)]])
    values = np.full((40, 60), 500, np.uint16)
    values[0, 0] = 3000
    PillowImage.fromarray(values).save(root / "images/train_0.png")
    page = root / "data.yaml"
    page.write_text(
        "train: {images: images, annotations: annotations/train.json}\n"
        "settings: {normalize: {range: [0, 1000]}}\n"
    )
    report = inspect_data(load_data_spec(page))
    assert not any("16-bit" in what for what in findings(report, "train"))
    assert report.splits["train"].picture(0)[5, 5].tolist() == [128] * 3  # 500 / 1000 x 255 + 0.5
    page.write_text(page.read_text().replace("[0, 1000]", "[1000, 0]"))
    with pytest.raises(ConfigError, match="the lowest value comes first"):
        inspect_data(load_data_spec(page))


def test_a_split_without_boxes_is_an_error(coco):
    root = coco([[(5, 5, 10, 10, 3), (5, 20, 10, 10, 7)]])
    coco([[]], split="val", first=9)
    report = inspect_data(load_data_spec(root))
    assert found(report, "val", "split without a single box") == ("error", 1) and not report.safe


def test_text_of_others_is_no_markup(coco):
    root = coco([[(5, 5, 10, 10, 3)]])
    path = root / "annotations/train.json"
    path.write_text(path.read_text().replace("ship", "[/red]").replace("car", "[bold]"))
    text = inspect_data(load_data_spec(root)).text()
    assert "[/red]" in text and "classes without a box (first: [bold])" in text


def test_no_repaired_copy_lacks_what_training_needs(coco, tmp_path: Path) -> None:
    """Train cannot be read; or all of its images are in val too."""
    root = coco([[(5, 5, 10, 10, 3)]])
    coco([[(5, 5, 10, 10, 3)]], split="val", first=50)
    (root / "images/train_0.png").write_bytes((root / "images/val_0.png").read_bytes())
    report = inspect(options_of(root, fix=True, out=tmp_path / "copy", project=tmp_path / "runs"))
    last = "no repaired copy was written: nothing would be left of train"
    assert found(report, "", last) == ("error", 1)
    (root / "annotations/train.json").write_text("{")
    report = inspect(options_of(root, fix=True, out=tmp_path / "copy", project=tmp_path / "runs"))
    assert found(report, "", last) == ("error", 1)
    assert not (tmp_path / "copy").exists()


def test_ids_of_two_kinds_are_kept(coco, tmp_path: Path) -> None:
    root = coco([[(5, 5, 10, 10, 3)], [(5, 5, 9, 9, 3)], [(5, 5, 8, 8, 3)]])
    path = root / "annotations/train.json"
    content = json.loads(path.read_text())
    ids = [7, "seven", 10**25]
    for image, box, identity in zip(content["images"], content["annotations"], ids, strict=True):
        image["id"] = box["image_id"] = identity
    path.write_text(json.dumps(content))
    inspect(options_of(root, fix=True, out=tmp_path / "copy", project=tmp_path / "runs"))
    copy = json.loads((tmp_path / "copy/annotations/train.json").read_text())
    assert [image["id"] for image in copy["images"]] == ids


def test_the_repaired_copy_keeps_images_and_objects_apart(coco, tmp_path: Path) -> None:
    """A made name is no other image's, and an ignored box takes no object's place."""
    root = coco([[(5, 5, 10, 10, 3), (5, 5, 10, 10, 3)], [(7, 2, 8, 8, 7)], [(1, 1, 9, 9, 3)]])
    path = root / "annotations/train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["ignore"] = 1
    for entry, name in zip(content["images"], ("x/a.png", "y/a.png", "z/a-2.png"), strict=True):
        source = root / "images" / entry["file_name"]
        (root / "images" / name).parent.mkdir()
        pixels = np.full((40, 60, 3), 10 * entry["id"], np.uint8)
        cv2.imwrite(str(root / "images" / name), pixels)
        source.unlink()
        entry["file_name"] = name
    path.write_text(json.dumps(content))
    about = "train: annotations/train.json\nimages: images\nnames: [ship, car]\nlicence: MIT\n"
    about += "expects: {train: 3}\nmodel_settings: {fcos: {imgsz: 320}}\n"
    with (root / "data.yaml").open("a") as file:
        file.write(about)
    out = tmp_path / "copy"
    inspect(options_of(root, fix=True, out=str(out), project=str(tmp_path / "runs")))
    index = load_index(load_data_spec(out), "train")
    assert len({str(path) for path in index.paths}) == 3
    for row in range(3):
        assert int(index.read_image(row)[0, 0, 0]) == 10 * int(index.image_ids[row])
    assert index.ignore[index.rows_of(0)].tolist() == [True, False]
    spec = load_data_spec(out)
    assert (spec.info, spec.model_settings) == ({"licence": "MIT"}, {"fcos": {"imgsz": 320}})


def test_a_project_that_nothing_can_be_written_into(faulty: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"project=.*file: .* is no directory; give another one"):
        inspect(options_of(faulty, project=str(tmp_path / "file")))
