"""Prediction: batches of any sizes, what cannot be read, files, classes, and the Python face."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rfla import RFLA
from rfla.cfg import Config, load_config
from rfla.engine.predictor import class_indices, predict
from rfla.engine.trainer import train
from rfla.errors import ConfigError, DataError


@pytest.fixture
def weights(config: Callable[..., Config]) -> Path:
    return train(config(epochs=1, val=False)).best


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images of different sizes."""
    root = tmp_path / "in"
    root.mkdir()
    rng = np.random.default_rng(0)
    for name, size in {"a.png": (64, 64), "b.png": (40, 90), "c.png": (70, 30)}.items():
        cv2.imwrite(str(root / name), rng.integers(0, 255, (*size, 3), np.uint8))
    return root


@pytest.fixture
def asked(weights: Path, folder: Path, tmp_path: Path) -> Callable[..., Config]:
    def give(**changes: Any) -> Config:
        settings = {
            "model": str(weights),
            "source": str(folder),
            "project": str(tmp_path / "runs"),
            "device": "cpu",
        }
        return load_config(settings | changes, mode="predict")

    return give


def test_files(asked: Callable[..., Config], capsys: pytest.CaptureFixture[str]) -> None:
    run = predict(asked(conf=0.01, save_txt=True, save_conf=True))
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    pictures, labels = {f"{n}.png" for n in "abc"}, {f"labels/{n}.txt" for n in "abc"}
    assert names == {"args.yaml", "predictions.json"} | pictures | labels
    rows = json.loads((run / "predictions.json").read_text())
    text = (run / "labels" / "b.txt").read_text().split("\n")[0].split()
    first = next(row for row in rows if row["image_id"] == "b")
    assert len(text) == 6 and float(text[3]) * 90 == pytest.approx(first["bbox"][2], rel=1e-4)
    assert "3 images" in capsys.readouterr().out
    assert predict(asked(conf=0.01, save=False)).name == "predict2"


def test_unreadable_images_are_named(
    asked: Callable[..., Config], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bad.png").write_bytes(b"no")
    predict(asked(conf=0.01, save=False))
    out = capsys.readouterr().out
    assert "skipped: " in out and "bad.png" in out and "3 images" in out
    for path in folder.iterdir():
        path.write_bytes(b"no")
    with pytest.raises(DataError, match="none of 4 images could be read"):
        predict(asked())


def test_a_batch_of_mixed_sizes_finds_what_single_images_do(weights: Path, folder: Path) -> None:
    model = RFLA(weights)
    together = model.predict(folder, conf=0.01, batch=3, device="cpu")
    alone = list(model.predict(folder, conf=0.01, batch=1, device="cpu", stream=True))
    assert (
        [r.path for r in together]
        == [r.path for r in alone]
        == sorted(str(p) for p in folder.iterdir())
    )
    for one, other in zip(together, alone, strict=True):
        assert one.orig_shape == other.orig_shape
        height, width = one.orig_shape
        assert (one.boxes.xyxy <= [width, height, width, height]).all() and (
            one.boxes.xyxy >= 0
        ).all()
        # Padding is zero, as beyond an image's edge, but its points take part: compare the sure
        # ones.
        best = min(5, len(other))
        np.testing.assert_allclose(one.boxes.conf[:best], other.boxes.conf[:best], atol=2e-2)


def test_classes(weights: Path, folder: Path) -> None:
    found = RFLA(weights).predict(str(folder), conf=0.01, classes=["car"], device="cpu")
    assert {int(label) for result in found for label in result.boxes.cls} <= {1}
    assert class_indices(["car", 0, "1"], ["ship", "car"]) == [1, 0, 1]
    with pytest.raises(
        ConfigError, match="classes=cat: the model knows ship, car; did you mean 'car'"
    ):
        class_indices(["cat"], ["ship", "car"])
    with pytest.raises(ConfigError, match="classes=7"):
        class_indices([7], ["ship", "car"])


def test_the_python_face(
    weights: Path, folder: Path, settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    model = RFLA("fcos_p2")
    assert (repr(model), model.names) == ("RFLA('fcos_p2')", ())
    with pytest.raises(ConfigError, match="fcos_p2 is not trained yet"):
        model.predict(folder)
    with pytest.raises(ConfigError, match="did you mean 'fcos_p2'"):
        RFLA("fcos_p22")
    given = {key: value for key, value in settings(epochs=1).items() if key != "model"}
    metrics = model.train(**given)
    assert metrics is not None and model.model.endswith("best.safetensors")
    assert model.names == ("ship", "car")
    again = model.val(
        data=given["data"], project=given["project"], device="cpu", workers=0, plots=False
    )
    assert again.figures == pytest.approx(metrics.figures, abs=1e-6)
    results = model(np.zeros((50, 60, 3), np.uint8), conf=0.0, max_det=3, device="cpu")
    assert len(results) == 1 and len(results[0]) <= 3 and results[0].names == ("ship", "car")
    assert set(results[0].speed) == {"preprocess", "inference", "postprocess"}
