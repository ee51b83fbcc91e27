"""Pixels without data: slices of nothing else are left out, the rest is painted as padding is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfla import RFLA
from rfla.cfg.model_schema import NormalizeConfig
from rfla.predict.nodata import HOLE, fill_of, holes_in, without_nodata
from rfla.predict.predictor import Predictor

FILL = (124, 116, 104)


def test_the_fill_is_what_the_network_sees_as_nothing() -> None:
    assert fill_of(NormalizeConfig()) == FILL
    caffe = NormalizeConfig(mean=(103.5, 116.3, 123.7), std=(1, 1, 1), channels="bgr")
    assert fill_of(caffe) == FILL


def test_holes_are_squares_not_specks() -> None:
    """A strip along the border, a square of 17 px, and a bright spot of 3 px."""
    valid = np.ones((60, 80), bool)
    valid[:, :5] = False
    valid[20 : 20 + HOLE, 40 : 40 + HOLE] = False
    valid[50:53, 20:23] = False
    holes = holes_in(valid)
    assert holes[:, :5].all() and holes[20 : 20 + HOLE, 40 : 40 + HOLE].all()
    assert holes.sum() == 60 * 5 + HOLE**2
    pixels = np.zeros((60, 80, 3), np.uint8)
    painted = without_nodata(pixels, valid, FILL)
    assert painted is not None and pixels.sum() == 0
    assert (painted[holes] == FILL).all() and not painted[~holes].any()


def test_slices_without_data() -> None:
    pixels = np.zeros((9, 9, 3), np.uint8)
    assert without_nodata(pixels, np.zeros((9, 9), bool), FILL) is None
    assert without_nodata(pixels, None, FILL) is pixels
    assert without_nodata(pixels, np.ones((9, 9), bool), FILL) is pixels


@pytest.fixture
def half_empty(tmp_path: Path) -> Path:
    """A raster of 64 x 192 px whose right two thirds state nodata."""
    rasterio = pytest.importorskip("rasterio", reason="the extra [geo] is not installed")
    path = tmp_path / "half.tif"
    pixels = np.random.default_rng(0).integers(1, 255, (3, 64, 192), np.uint8)
    pixels[:, :, 64:] = 0
    kind = {"driver": "GTiff", "dtype": "uint8", "count": 3, "photometric": "RGB", "nodata": 0}
    with rasterio.open(path, "w", height=64, width=192, **kind) as file:
        file.write(pixels)
    return path


@pytest.mark.parametrize("by_windows", [False, True])
def test_the_network_does_not_see_empty_slices(
    weights: Path,
    half_empty: Path,
    by_windows: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = []
    original = Predictor._run
    monkeypatch.setattr(
        Predictor,
        "_run",
        lambda self, batch, options: (seen.extend(batch), original(self, batch, options)),
    )
    if by_windows:
        monkeypatch.setattr("rfla.data.scenes.BY_WINDOWS", 1000)
    settings: dict[str, Any] = {"conf": 0.0, "max_det": 20, "imgsz": 64, "device": "cpu"}
    model = RFLA(weights)
    boxes = model.predict(half_empty, slice=64, overlap=0, **settings)[0].boxes
    assert len(seen) == 1 and len(boxes) == 20
    assert "2 of 3 slices hold nodata alone" in caplog.text
    assert boxes.xyxy[:, 2].max() <= 64


def test_an_empty_scene_has_results(weights: Path, half_empty: Path, tmp_path: Path) -> None:
    import rasterio

    path = tmp_path / "empty.tif"
    with rasterio.open(half_empty) as file:
        profile = file.profile
    with rasterio.open(path, "w", **profile) as file:
        file.write(np.zeros((3, 64, 192), np.uint8))
    found = RFLA(weights).predict([path, half_empty, path], slice=64, device="cpu", conf=0.0)
    assert [len(results) > 0 for results in found] == [False, True, False]
