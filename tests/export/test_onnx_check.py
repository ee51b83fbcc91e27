"""ONNX files of strangers: each is refused in one line before, or while, it is run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from rfla import RFLA
from rfla.cfg.onnx_header import DIGEST, sealed
from rfla.errors import ConfigError, WeightsError
from rfla.export.exported_net import ExportedNet
from rfla.export.input_shape import InputShape
from rfla.export.session import providers
from rfla.ops.nms import DetectionLimits

IMAGE = np.zeros((64, 64, 3), np.uint8)
Change = Callable[[Any], None]


def external(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def external_inside(model: Any) -> None:
    """In an attribute of an operator, not among the weights."""
    tensor = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("value", tensor))


def operator_of_others(model: Any) -> None:
    model.graph.node[3].domain = "com.microsoft"


def function(model: Any) -> None:
    model.functions.add(name="f", domain="x")


def other_output(model: Any) -> None:
    del model.graph.output[3]


def about(**changes: Any) -> Change:
    def change(model: Any) -> None:
        entry = next(entry for entry in model.metadata_props if entry.key == "rfla")
        metadata = json.loads(entry.value)
        metadata["export"] |= changes
        entry.value = json.dumps(metadata)

    return change


def changed(path: Path, change: Change, directory: Path) -> Path:
    """The file after a change, sealed anew."""
    model = onnx.load(path)
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != DIGEST}
    onnx.helper.set_model_props(model, kept)
    change(model)
    other = directory / "x.onnx"
    other.write_bytes(sealed(model.SerializeToString()))
    return other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external, "has weights in another file, which is not read"),
        (external_inside, "has weights in another file, which is not read"),
        (operator_of_others, "has operators of 'com.microsoft'; only those of ONNX are run"),
        (function, "has functions of its own"),
        (other_output, "its inputs and outputs are not those of 'rfla export'"),
        (about(side=10**9), "absurd sizes of its input: None images of 1000000000 px"),
        (about(batch=0), "absurd sizes of its input: 0 images"),
        (about(least_side=10**6), "absurd sizes of its input"),
        (about(input="bf16"), "its metadata does not say what the graph takes"),
        (about(nms="no"), "its metadata does not say what the graph takes"),
    ],
)
def test_refused(
    change: Change, message: str, exported: Callable[..., Path], tmp_path: Path
) -> None:
    path = changed(exported("fcos_p2"), change, tmp_path)
    with pytest.raises(WeightsError, match=message) as caught:
        RFLA(path).predict(IMAGE, device="cpu")
    assert "\n" not in str(caught.value)


def break_weights(model: Any) -> None:
    model.graph.initializer[0].dims[0] = 10**12


def mix_up(model: Any) -> None:
    """Scores for a map: the graph is sound, and fails when it runs."""
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    shape = onnx.helper.make_tensor("shape", onnx.TensorProto.INT64, [1], [-1])
    model.graph.initializer.append(shape)
    flat = onnx.helper.make_node("Reshape", [convolution.input[0], "shape"], ["flat"])
    model.graph.node.insert(list(model.graph.node).index(convolution), flat)
    convolution.input[0] = "flat"


@pytest.mark.parametrize("change", [break_weights, mix_up])
def test_what_onnxruntime_refuses_is_one_line(
    change: Change,
    exported: Callable[..., Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Also on the streams of the process: onnxruntime writes to them by itself."""
    path = changed(exported("fcos_p2"), change, tmp_path)
    with pytest.raises(WeightsError, match="onnxruntime: ") as caught:
        RFLA(path).predict(IMAGE, device="cpu")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_byte_that_changed(exported: Callable[..., Path], tmp_path: Path) -> None:
    content = bytearray(exported("fcos_p2").read_bytes())
    content[len(content) // 2] ^= 1  # in the weights
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="changed since 'rfla export' wrote it"):
        RFLA(path).predict(IMAGE, device="cpu")


class Returning:
    """A runner whose graph returns what it is told."""

    name, shape, least_side, suppresses = "x.onnx", InputShape(), 32, True

    def __init__(self, *outputs: torch.Tensor) -> None:
        self.outputs = list(outputs)
        self.suppresses = len(outputs) == 4

    def run(self, images: torch.Tensor, sizes: torch.Tensor) -> list[torch.Tensor]:
        return self.outputs


BOXES, SCORES = torch.tensor([[[0.0, 0, 4, 4], [0, 0, 0, 0]]]), torch.tensor([[0.5, 0.0]])
LABELS, COUNTS = torch.tensor([[1, -1]]), torch.tensor([1])


def detect(*outputs: torch.Tensor) -> Any:
    net = ExportedNet(Returning(*outputs), 2, DetectionLimits())
    return net(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), image_sizes=[(32, 32)])[0]


@pytest.mark.parametrize(
    "outputs",
    [
        (BOXES, SCORES, torch.tensor([[2, -1]]), COUNTS),  # a class that the names lack
        (BOXES, SCORES, LABELS, torch.tensor([2])),  # counts padding as a detection
        (BOXES, SCORES, LABELS, torch.tensor([[1]])),
        (BOXES[:, :1], SCORES, LABELS, COUNTS),
        (BOXES * torch.inf, SCORES, LABELS, COUNTS),
        (BOXES, SCORES[0], LABELS, COUNTS),
        (BOXES, SCORES[..., None]),  # one class, of two
        (BOXES, SCORES),
    ],
)
def test_outputs_of_no_detector(outputs: tuple[torch.Tensor, ...]) -> None:
    assert detect(BOXES, SCORES, LABELS, COUNTS)["labels"].tolist() == [1]
    with pytest.raises(WeightsError, match=r"x\.onnx: its graph returns no detections of 2 class"):
        detect(*outputs)


def test_small_images_are_padded_to_what_the_graph_takes() -> None:
    seen: list[tuple[int, ...]] = []

    class Watching(Returning):
        least_side = 96

        def run(self, images: torch.Tensor, sizes: torch.Tensor) -> list[torch.Tensor]:
            seen.append(tuple(images.shape))
            return self.outputs

    net = ExportedNet(Watching(BOXES, SCORES, LABELS, COUNTS), 2, DetectionLimits())
    net(torch.zeros(1, 3, 32, 128, dtype=torch.uint8), image_sizes=[(32, 128)])
    assert seen == [(1, 3, 96, 128)]


CPU, CUDA, TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
EVERY = [TENSORRT, CUDA, CPU]
FIRST, SECOND = {"device_id": 0}, {"device_id": 1}


@pytest.mark.parametrize(
    ("device", "available", "tensorrt", "chosen"),
    [
        ("cpu", EVERY, True, [CPU]),
        ("cuda", EVERY, False, [(CUDA, FIRST), CPU]),
        ("cuda:1", EVERY, True, [(TENSORRT, SECOND), (CUDA, SECOND), CPU]),
        ("cuda", [CUDA, CPU], True, [(CUDA, FIRST), CPU]),
    ],
)
def test_providers(device: str, available: list[str], tensorrt: bool, chosen: list[Any]) -> None:
    assert providers(torch.device(device), available, tensorrt) == chosen


def test_a_provider_that_is_missing() -> None:
    with pytest.raises(ConfigError, match="this onnxruntime has no provider for it"):
        providers(torch.device("cuda"), [CPU], False)
