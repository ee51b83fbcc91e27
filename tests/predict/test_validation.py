"""`rfla val slice=`: what it judges is what `rfla predict` with the same settings finds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rfla import RFLA
from rfla.cfg import Config, load_config
from rfla.data import load_data_spec, load_index
from rfla.engine.inference import judge
from rfla.metrics import Detections, study
from rfla.metrics import ground_truth as truths
from rfla.metrics.protocols import find_protocol
from rfla.predict.options import PredictOptions
from rfla.predict.slices import Slices
from rfla.predict.validation import seam_line, validate
from rfla.tools.compare import compare_files


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """Three images of 100 x 130 px with objects of two classes, one region and one crowd."""
    root, rng = tmp_path / "set", np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    images, annotations = [], []
    for number in (1, 2, 3):
        name = f"{number}.png"
        cv2.imwrite(str(root / "images" / name), rng.integers(0, 255, (100, 130, 3), np.uint8))
        images.append({"id": number, "file_name": name, "height": 100, "width": 130})
        for x, category, region in [(10, 1, 0), (58, 1, 0), (80, 2, 0), (30, 2, 1)]:
            box = {"bbox": [x, 20, 10, 10], "area": 100, "iscrowd": region}
            numbers = {"id": len(annotations) + 1, "image_id": number, "category_id": category}
            annotations.append(box | numbers)
    categories = [{"id": 1, "name": "ship"}, {"id": 2, "name": "car"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "val.json").write_text(json.dumps(document))
    return root


@pytest.fixture
def judged(weights: Path, split: Path, tmp_path: Path) -> Callable[..., Config]:
    def give(**changes: Any) -> Config:
        settings = {"model": str(weights), "data": str(split), "project": str(tmp_path / "runs")}
        settings |= {"imgsz": 64, "workers": 0, "device": "cpu", "plots": False, "max_det": 40}
        return load_config(settings | changes, mode="val")

    return give


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((run / "predictions.json").read_text())
    return rows


def test_one_slice_is_judged_as_the_whole_image(
    judged: Callable[..., Config], tmp_path: Path
) -> None:
    plain = validate(judged(name="plain"))
    sliced = validate(judged(name="sliced", slice=200, overlap=20))
    assert rows_of(tmp_path / "runs" / "plain") == rows_of(tmp_path / "runs" / "sliced")
    assert plain.figures == sliced.figures


def test_it_judges_what_predict_finds(
    judged: Callable[..., Config], weights: Path, split: Path, tmp_path: Path
) -> None:
    cut = {"slice": 64, "overlap": 20}
    validate(judged(**cut))
    settings: dict[str, Any] = {"imgsz": 64, "device": "cpu", "conf": 0.0, "max_det": 40}
    expected = RFLA(weights).predict(split / "images", **settings, **cut)
    rows = rows_of(tmp_path / "runs" / "val")
    for number, results in enumerate(expected, start=1):
        own = [row for row in rows if row["image_id"] == number]
        assert len(own) == len(results) > 50
        corners = np.array([row["bbox"][:2] for row in own])
        np.testing.assert_allclose(corners, results.boxes.xyxy[:, :2], atol=1e-4)
        assert [row["category_id"] for row in own] == (results.boxes.cls + 1).tolist()


@pytest.mark.parametrize("cut", [{}, {"slice": 64, "overlap": 20}])
def test_views_are_judged(
    judged: Callable[..., Config],
    weights: Path,
    split: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    cut: dict[str, Any],
) -> None:
    """With and without slices `tta=` judges what predict finds with it."""
    validate(judged(tta="scales", **cut))
    assert ("lie at seams" in capsys.readouterr().out) == bool(cut)
    settings: dict[str, Any] = {"imgsz": 64, "device": "cpu", "conf": 0.0, "max_det": 40}
    found = RFLA(weights).predict(split / "images", tta="scales", **settings, **cut)
    scores = np.concatenate([results.boxes.conf for results in found])
    rows = rows_of(tmp_path / "runs" / "val")
    np.testing.assert_allclose([row["score"] for row in rows], scores, atol=1e-6)
    plain = RFLA(weights).predict(split / "images", **settings, **cut)
    assert scores.sum() > sum(results.boxes.conf.sum() for results in plain)


def test_two_runs_are_compared(
    judged: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validate(judged(name="plain"))
    validate(judged(name="sliced", slice=64, overlap=8, merge="nms", merge_metric="ios"))
    assert "6 of 9 objects lie at seams of slices" in capsys.readouterr().out
    runs = tmp_path / "runs"
    comparison = compare_files(str(runs / "plain"), str(runs / "sliced"), draws=10)
    assert comparison.images == 3
    assert "slice: 64" in (runs / "sliced" / "args.yaml").read_text()


def test_a_file_that_cannot_be_read(
    judged: Callable[..., Config], split: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (split / "images" / "2.png").write_bytes(b"no image")
    validate(judged(slice=64))
    assert "skipped: " in capsys.readouterr().out


def test_objects_at_seams_are_counted(split: Path) -> None:
    """Columns of slices with an overlap of 0: 0..64, 64..128, 66..130; with one of 20: 44..108.

    Of three objects at x = 10, 58, 80 with sides of 10 px the last two lie at seams. Every slice
    cuts the second one, unless slices overlap. Found is the first of each image.
    """
    index = load_index(load_data_spec(str(split)), "val")
    boxes = np.array([[10.0, 20, 20, 30]] * 3)
    found = Detections(np.arange(3), boxes, np.ones(3), np.zeros(3, np.int64))
    protocol = find_protocol("aitod", None)
    assert judge(index, found, protocol).metrics.ar_1500 > 0
    lines = [
        seam_line(
            study(truths(index), found, protocol),
            index,
            PredictOptions(64, slices=Slices(64, overlap)),
        )
        for overlap in (0, 20)
    ]
    assert lines[0] == (
        "6 of 9 objects lie at seams of slices: 0.0% of them were found, 100.0% of the others "
        "(at IoU 0.5 and any score); 3 are cut by every slice, of which 0.0% were found: "
        "a larger overlap= helps"
    )
    assert lines[1].endswith("100.0% of the others (at IoU 0.5 and any score)")
