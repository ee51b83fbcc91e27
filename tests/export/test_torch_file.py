"""Programs of torch alone against the network, and that rfla runs none that it is given."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rfla import RFLA
from rfla.cli import main
from rfla.engine.model_source import load_trained
from rfla.errors import ConfigError, WeightsError
from rfla.export.exported_net import ExportedNet
from rfla.export.forms import FORMS
from rfla.export.parity import FLOAT32, compare
from rfla.export.torch_file import TorchRunner
from rfla.models.limits import build_limits

CPU = torch.device("cpu")
DETECTORS = ["fcos_p2", "faster_rcnn", "fcos", "rfd", "retinanet", "autoassign", "cascade_rcnn"]
DETECTORS.append("detectors")
CASES = [
    *(("torchscript", name) for name in DETECTORS[:2]),
    *(pytest.param("torchscript", name, marks=pytest.mark.slow) for name in DETECTORS[2:]),
    *(pytest.param("torch_export", name, marks=pytest.mark.slow) for name in DETECTORS),
]


def noise(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.mark.timeout(1200)  # torch.export takes a minute for detectors on a core of its own
@pytest.mark.parametrize(("form", "name"), CASES)
def test_the_same_detections_at_other_sizes(
    form: str, name: str, weights: Callable[[str], Path], exported: Callable[..., Path]
) -> None:
    model, path = load_trained(weights(name)), exported(name, format=form, imgsz=160)
    runner = FORMS[form].run(path.read_bytes(), path.name, CPU)
    net = ExportedNet(runner, 3, build_limits(model.config.test))
    batches = [noise((128, 160), (101, 131)), noise((256, 192)), noise((97, 351))]
    parity = compare(model.net, model.config.normalize, net, batches, FLOAT32)
    assert parity.images == 4 and parity.detections > 100
    assert parity.share >= 0.999, parity.line()
    assert parity.worst_box < 1e-2 and parity.worst_score < 1e-4


OPTIONS: list[dict[str, Any]] = [
    {"nms": False},
    {"dynamic": False, "batch": 2, "imgsz": 128},
    {"input": "float"},
]


@pytest.mark.slow
@pytest.mark.parametrize("changes", OPTIONS)
@pytest.mark.parametrize("form", ["torch_export", "torchscript"])
def test_options(
    form: str,
    changes: dict[str, Any],
    weights: Callable[[str], Path],
    exported: Callable[..., Path],
) -> None:
    model, path = load_trained(weights("fcos_p2")), exported("fcos_p2", format=form, **changes)
    runner = FORMS[form].run(path.read_bytes(), path.name, CPU)
    net = ExportedNet(runner, 3, build_limits(model.config.test))
    batches = [noise((128, 128), (128, 128), (128, 128))]  # an odd number for a batch of 2
    parity = compare(model.net, model.config.normalize, net, batches, FLOAT32)
    assert parity.detections > 30 and parity.share >= 0.999, parity.line()


STRANGER = """
import json, sys, torch, torchvision
about = {"names": "", "imgsz": "", "export": ""}
if sys.argv[1].endswith(".pt2"):
    net = torch.export.load(sys.argv[1], extra_files=about).module()
else:
    net = torch.jit.load(sys.argv[1], _extra_files=about)
images = torch.full((1, 3, 96, 128), 100, dtype=torch.uint8)
boxes, scores, labels, counts = net(images, torch.tensor([[96, 128]]))
boxes.numpy()  # no part of a derivative
assert "rfla" not in sys.modules
print(json.loads(about["names"]), json.loads(about["export"])["max_det"], tuple(boxes.shape))
"""


@pytest.mark.parametrize(
    "form", ["torchscript", pytest.param("torch_export", marks=pytest.mark.slow)]
)
def test_a_program_runs_without_rfla(form: str, exported: Callable[..., Path]) -> None:
    path = exported("fcos_p2", format=form)
    command = [sys.executable, "-W", "ignore", "-c", STRANGER, str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout
    assert said.strip() == "['ship', 'car', 'bus'] 100 (1, 100, 4)"


@pytest.mark.parametrize("name", ["x.pt2", "x.torchscript"])
def test_no_program_is_loaded(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(b"PK")
    for tokens in (
        ["predict", f"model={path}", f"source={tmp_path}"],
        ["val", f"model={path}", "data=demo"],
        ["export", f"model={path}"],
    ):
        assert main(tokens) == 2
        error = capsys.readouterr().err.strip()
        assert "may do anything when it is loaded: rfla writes such files and runs none" in error
        assert "\n" not in error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "torchscript", "int8": True}, "int8: is for format=onnx, not for"),
        ({"format": "torch_export", "opset": 17}, "opset: is for format=onnx, not for"),
        ({"format": "torch_export", "out": "x.onnx"}, "of format=torch_export ends in .pt2"),
        ({"format": "torchscript", "out": "x.pt"}, "of format=torchscript ends in .torchscript"),
    ],
)
def test_refused(changes: Any, message: str, weights: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=message):
        RFLA(weights("fcos_p2")).export(**changes)


def test_a_program_has_its_place_and_fails_in_one_line() -> None:
    about = {"batch": 1, "side": 64, "input": "uint8", "least_side": 32, "nms": True}
    with pytest.raises(ConfigError, match=r"device=cuda: x\.pt2 computes on the CPU"):
        TorchRunner(lambda images, sizes: (images,), about, "x.pt2", torch.device("cuda"))

    def failing(images: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raise RuntimeError("two\nlines")

    runner = TorchRunner(failing, json.loads(json.dumps(about)), "x.pt2", CPU)
    with pytest.raises(WeightsError, match=r"x\.pt2: torch: two lines"):
        runner.run(torch.zeros(1, 3, 64, 64), torch.zeros(1, 2))


def test_the_least_side_of_a_program_is_above_its_coarsest_stride(
    weights: Callable[[str], Path], tmp_path: Path
) -> None:
    """P7 has a stride of 128 px; the next multiple of 32 above it is 160."""
    with pytest.raises(ConfigError, match="images of 160 px and more"):
        RFLA(weights("retinanet")).export(
            format="torch_export", imgsz=128, out=str(tmp_path / "x.pt2")
        )
