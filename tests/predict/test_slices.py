"""Which slices an image is cut into: overlap by the objects of training, sizes by the ground."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfla import RFLA
from rfla.cfg import load_config
from rfla.data.object_sizes import TrainedScale
from rfla.engine.model_source import load_trained
from rfla.errors import ConfigError
from rfla.models.weights import load_weights, save_weights
from rfla.predict.options import PredictOptions
from rfla.predict.slices import Slices


def test_overlap_by_the_largest_objects() -> None:
    """Objects of up to 30 px at the input: 38 px, which holds them with 4 px on either side."""
    assert Slices(800, largest=30.0).overlap_px(800) == 38
    assert Slices("auto", largest=30.0).overlap_px(640) == 38
    assert Slices(400, largest=30.0).overlap_px(800) == 23  # shown at twice their size: 15 px
    assert Slices(800).overlap_px(800) == 160  # a fifth, where nothing is known
    assert Slices(100, largest=500.0).overlap_px(100) == 50  # half a slice at the most
    assert Slices(800, 0.25, largest=30.0).overlap_px(800) == 200
    assert Slices(800, 0, largest=30.0).overlap_px(800) == 0
    with pytest.raises(ConfigError, match="overlap=64 with slices of 64 px: must be below"):
        Slices(64, 64).overlap_px(64)


def test_a_few_huge_objects_do_not_decide() -> None:
    assert TrainedScale(px_99=20.0, px_max=25.0).largest == 25
    assert TrainedScale(px_99=20.0, px_max=700.0).largest == 40


def test_slices_of_another_ground() -> None:
    """Pixels of 0.1 m for a model of 0.4 m: a slice of 64 px at the input spans 256 px."""
    options = PredictOptions(64, slices=Slices("auto", 8), trained_gsd=0.4)
    cut = options.cut(300, 600, 0.1)
    assert cut.tiles[:3].tolist() == [[0, 0, 256, 256], [224, 0, 480, 256], [344, 0, 600, 256]]
    assert options.long_side(cut, 256, 256) == 64
    assert options.long_side(options.cut(100, 80, 0.1), 100, 80) == 25
    finer = options.cut(100, 80, 0.8)  # slices of 32 px
    assert finer.tiles[0].tolist() == [0, 0, 32, 32]
    assert options.long_side(finer, 32, 32) == 64
    assert options.cut(100, 80).tiles[0].tolist() == [0, 0, 64, 64]


def test_a_whole_image_of_another_ground_never_outgrows_the_input() -> None:
    options = PredictOptions(64, trained_gsd=0.4)
    assert options.long_side(options.cut(64, 40, 0.2), 64, 40) == 32
    assert options.long_side(options.cut(64, 40, 4.0), 64, 40) == 64
    assert options.long_side(options.cut(64, 40), 64, 40) == 64


@pytest.fixture
def aware(weights: Path, tmp_path: Path) -> Callable[..., str]:
    """Give the weights other entries in their header."""

    def give(**entries: Any) -> str:
        state, metadata = load_weights(weights)
        path = tmp_path / "aware.safetensors"
        save_weights(path, state, metadata | entries)
        return str(path)

    return give


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def test_the_ground_resizes_and_boxes_come_back(aware: Callable[..., str]) -> None:
    """At 0.2 m for a model of 0.4 m an image of 64 px is seen at 32 px, as by imgsz=32."""
    model = RFLA(aware(objects={"px_99": 9.0, "px_max": 12.5}, gsd=0.4))
    settings: dict[str, Any] = {"conf": 0.0, "device": "cpu", "max_det": 30}
    resized = model.predict(noise(64, 64), imgsz=64, gsd=0.2, **settings)[0].boxes
    plain = model.predict(noise(64, 64), imgsz=32, **settings)[0].boxes
    np.testing.assert_array_equal(resized.xyxy, plain.xyxy)
    assert resized.xyxy.max() > 32


def test_what_is_resized_is_said(
    aware: Callable[..., str], caplog: pytest.LogCaptureFixture
) -> None:
    model = RFLA(aware(objects={"px_99": 9.0, "px_max": 12.5}, gsd=0.4))
    model.predict(noise(64, 64), imgsz=64, gsd=0.2, conf=0.9, device="cpu", slice="auto")
    line = "0.2 m a pixel, the model was trained at 0.4 m: resized to 0.5 of its size (1 of 1)"
    assert line in caplog.text


def test_a_model_that_does_not_know_its_ground(weights: Path) -> None:
    with pytest.raises(ConfigError, match="does not say at which gsd it was trained"):
        RFLA(weights).predict(noise(64, 64), gsd=0.2, device="cpu")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, None),  # a file from before
        ({"objects": {"px_99": 9.0, "px_max": 12.5}}, TrainedScale(9.0, 12.5)),
        ({"objects": {"px_99": 9, "px_max": 12}, "gsd": 0.3}, TrainedScale(9.0, 12.0, 0.3)),
        ({"objects": {"px_99": 9.0, "px_max": 3.0}}, TrainedScale(9.0, 9.0)),
        ({"objects": {"px_99": -1, "px_max": 3.0}, "gsd": 0.3}, None),
        ({"objects": {"px_99": 9.0, "px_max": float("inf")}}, None),
        ({"objects": "large"}, None),
        ({"objects": {"px_99": 9.0, "px_max": 12.5}, "gsd": True}, TrainedScale(9.0, 12.5)),
    ],
)
def test_headers(aware: Callable[..., str], entries: dict[str, Any], expected: Any) -> None:
    path = aware(**entries)
    assert load_trained(path).scale == expected
    cfg = load_config({"model": path, "source": "x.png", "slice": 64}, mode="predict")
    options = PredictOptions.from_config(cfg, load_trained(path))
    assert options.slices is not None
    assert options.slices.largest == (None if expected is None else expected.largest)
    assert options == replace(options, gsd=None)
