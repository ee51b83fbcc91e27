"""Exported networks against torch, through onnxruntime: all detectors, sizes, batches, options."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from rfla import RFLA
from rfla.cfg.onnx_header import read_entries
from rfla.cfg.weights_header import read_metadata
from rfla.cli import main
from rfla.data.stacking import stack_images
from rfla.engine.model_source import load_trained
from rfla.errors import ConfigError, WeightsError
from rfla.export.exported_net import ExportedNet
from rfla.export.parity import FLOAT16, FLOAT32, Parity, compare
from rfla.export.session import OnnxRunner
from rfla.models.limits import build_limits
from rfla.results import Results

ONE_STAGE = ["fcos", "fcos_p2_up", "rfd", "retinanet", "autoassign", "autoassign_field"]
SLOW = [*ONE_STAGE, "cascade_rcnn", "detectors"]
DETECTORS = ["fcos_p2", "faster_rcnn", *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW)]
CPU = torch.device("cpu")


def noise(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.fixture
def both(
    weights: Callable[[str], Path], exported: Callable[..., Path]
) -> Callable[..., tuple[Any, ExportedNet]]:
    """`both("fcos", max_det=5)`: the network with these limits, and its export."""

    def load(name: str, **changes: Any) -> tuple[Any, ExportedNet]:
        path = exported(name, **changes)
        config = load_trained(weights(name)).config
        limits = read_metadata(path)["model"]["test"]
        config = config.model_copy(update={"test": config.test.model_copy(update=limits)})
        model = load_trained(weights(name), config)
        runner = OnnxRunner(path.read_bytes(), str(path), CPU)
        return model, ExportedNet(runner, len(model.names), build_limits(config.test))

    return load


@pytest.mark.parametrize("name", DETECTORS)
def test_the_same_detections_at_other_sizes(name: str, both: Callable[..., Any]) -> None:
    model, session = both(name)
    batches = [noise((128, 160), (101, 131)), noise((256, 192)), noise((97, 351))]
    parity = compare(model.net, model.config.normalize, session, batches, FLOAT32)
    assert parity.images == 4 and parity.detections > 100
    assert parity.share >= 0.999, parity.line()
    assert parity.worst_box < 1e-2 and parity.worst_score < 1e-4


@pytest.mark.parametrize("name", ["fcos_p2", "faster_rcnn"])
def test_nothing_is_found_beside_the_image(name: str, both: Callable[..., Any]) -> None:
    """In the padding of an image of 97 x 20 px networks find boxes too: a clip leaves no area."""
    _, session = both(name)
    images, sizes = stack_images(noise((97, 20)))
    (found,) = session(images, image_sizes=sizes)
    x1, y1, x2, y2 = found["boxes"].T
    assert len(x1) > 10
    assert (x1 < 20).all() and (y1 < 97).all() and (x2 > 0).all() and (y2 > 0).all()


def test_a_batch_of_8_finds_what_single_images_do(both: Callable[..., Any]) -> None:
    _, session = both("fcos_p2")
    images, sizes = stack_images(noise(*[(128, 128)] * 8))
    together = session(images, image_sizes=sizes)
    parity = Parity()
    for place, found in enumerate(together):
        alone = session(images[place : place + 1], image_sizes=sizes[:1])[0]
        parity.add(alone, found, 100, FLOAT32)
    assert parity.detections == 800 and parity.share == 1.0


def test_no_detections_and_too_many(both: Callable[..., Any]) -> None:
    images, sizes = stack_images(noise((128, 128)))
    model, few = both("fcos_p2", max_det=5)
    found = few(images, image_sizes=sizes)[0]
    assert found["boxes"].shape == (5, 4)
    assert compare(model.net, model.config.normalize, few, [noise((128, 128))], FLOAT32).share == 1
    _, none = both("fcos_p2", conf=0.999)
    raw = none.runner.session.run(None, {"images": images.numpy(), "image_sizes": np.array(sizes)})
    assert raw[3].tolist() == [0] and (raw[2] == -1).all() and not raw[0].any()
    assert len(none(images, image_sizes=sizes)[0]["scores"]) == 0


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("fcos_p2", {"nms": False}),
        ("fcos_p2", {"dynamic": False, "batch": 2, "imgsz": 128}),
        pytest.param("fcos_p2", {"input": "float"}, marks=pytest.mark.slow),
        pytest.param("faster_rcnn", {"nms": False}, marks=pytest.mark.slow),
        pytest.param("fcos", {"opset": 16}, marks=pytest.mark.slow),
        pytest.param("faster_rcnn", {"opset": 16}, marks=pytest.mark.slow),
    ],
)
def test_options(name: str, changes: dict[str, Any], both: Callable[..., Any]) -> None:
    model, session = both(name, **changes)
    batches = [noise((128, 128), (128, 128), (128, 128))]  # an odd number for a batch of 2
    parity = compare(model.net, model.config.normalize, session, batches, FLOAT32)
    assert parity.detections > 30 and parity.share >= 0.999, parity.line()
    if changes.get("dynamic") is False:
        with pytest.raises(ConfigError, match="exported for images of 128 x 128 px"):
            session(torch.zeros(1, 3, 160, 128, dtype=torch.uint8), image_sizes=[(160, 128)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fcos_p2", "faster_rcnn"])
def test_half_precision(name: str, both: Callable[..., Any], exported: Callable[..., Path]) -> None:
    """Scores of random weights are so alike that rounding decides which box suppresses which."""
    model, session = both(name, half=True, force=True)
    rules = replace(FLOAT16, lowest=0.0)
    batches = [noise((128, 128)), noise((97, 160))]
    parity = compare(model.net, model.config.normalize, session, batches, rules)
    assert parity.detections > 30 and parity.share > 0.3, parity.line()
    assert parity.worst_score < 0.05
    assert (
        exported(name, half=True, force=True).stat().st_size < 0.6 * exported(name).stat().st_size
    )


def test_what_the_file_says_of_itself(exported: Callable[..., Path]) -> None:
    path = exported("fcos_p2")
    entries = read_entries(path)
    assert json.loads(entries["names"]) == ["ship", "car", "bus"]
    assert json.loads(entries["imgsz"]) == 128
    about = json.loads(entries["export"])
    assert about["input"] == "uint8" and about["padded_to"] == 32 and about["max_det"] == 100
    theirs = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert entries == theirs
    assert RFLA(path).names == ("ship", "car", "bus")


def matched(one: list[Results], other: list[Results]) -> float:
    parity = Parity()
    for first, second in zip(one, other, strict=True):
        found = [
            {
                "boxes": torch.from_numpy(result.boxes.xyxy),
                "scores": torch.from_numpy(result.boxes.conf),
                "labels": torch.from_numpy(result.boxes.cls),
            }
            for result in (first, second)
        ]
        parity.add(found[0], found[1], 10**6, FLOAT32)
    assert parity.detections > 20
    return parity.share


@pytest.mark.parametrize("settings", [{}, {"slice": 64, "imgsz": 64}])
def test_predict_as_torch_does(
    settings: dict[str, Any], weights: Callable[[str], Path], exported: Callable[..., Path]
) -> None:
    images = noise((128, 128), (77, 140), (141, 90))
    common = {"conf": 0.02, "device": "cpu", "batch": 2, **settings}
    ours, theirs = RFLA(weights("fcos_p2")), RFLA(exported("fcos_p2"))
    assert matched(ours.predict(images, **common), theirs.predict(images, **common)) == 1.0
    # the limits of a call are those of the call, as far as the graph goes
    assert len(theirs.predict(images[0], max_det=3, conf=0.02, device="cpu")[0]) == 3


def test_settings_that_the_graph_cannot_undo(exported: Callable[..., Path]) -> None:
    model, image = RFLA(exported("fcos_p2")), noise((64, 64))[0]
    for settings, message in [
        (
            {"conf": 0.001},
            "test.score_thr=0.001: .* was exported with test.score_thr=0.01, which its graph "
            "cannot undo; export it again with conf=0.001",
        ),
        ({"iou": 0.6}, "iou=0.6: .* was exported with iou=0.5"),
        ({"max_det": 3000}, "max_det=3000: .* was exported with max_det=100"),
        ({"normalize": {"channels": "rgb"}}, "normalize.channels: is fixed in"),
    ]:
        with pytest.raises(ConfigError, match=message):
            model.predict(image, device="cpu", **settings)


def test_what_the_graph_cannot_undo_is_said_before_there_is_a_run(
    exported: Callable[..., Path],
    picture: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    picture(tmp_path / "x.png")
    given = [f"model={exported('fcos_p2')}", f"source={tmp_path / 'x.png'}", "iou=0.6"]
    assert main(["predict", *given, f"project={tmp_path / 'runs'}"]) == 2
    assert capsys.readouterr().err.startswith("error: iou=0.6: ")
    assert not (tmp_path / "runs").exists()


def test_limits_reach_the_session(both: Callable[..., Any]) -> None:
    model, session = both("fcos_p2")
    wanted = model.config.model_copy(
        update={"test": model.config.test.model_copy(update={"max_det": 2, "conf": 0.03})}
    )
    session.limits = build_limits(wanted.test)
    images, sizes = stack_images(noise((64, 64)))
    assert len(session(images, image_sizes=sizes)[0]["scores"]) == 2


def test_a_damaged_file_is_refused(exported: Callable[..., Path], tmp_path: Path) -> None:
    content = exported("fcos_p2").read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match=r"cut.onnx"):
        RFLA(path).predict(noise((64, 64))[0], device="cpu")
    foreign = onnx.load(exported("fcos_p2"))
    del foreign.metadata_props[:]
    onnx.save(foreign, path)
    with pytest.raises(WeightsError, match="a network that rfla did not export"):
        RFLA(path)
