"""Run an ONNX file by onnxruntime.

Shapes: B images, (H, W) px of the padded batch.
"""

from collections.abc import Collection
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rfla.cfg import saved_model_config
from rfla.cfg.model_schema import ModelConfig
from rfla.cfg.onnx_header import check_seal
from rfla.cfg.setting_layers import flatten
from rfla.engine.model_source import SourceModel, recorded_scale
from rfla.errors import ConfigError, WeightsError, one_line
from rfla.export.exported_net import ExportedNet
from rfla.export.extra import require
from rfla.export.input_shape import InputShape
from rfla.export.onnx_check import check_graph
from rfla.files import read_regular
from rfla.models.limits import build_limits
from rfla.models.weights import read_metadata

FREE = (
    "test.conf",
    "test.score_thr",
    "test.nms_iou",
    "test.max_det",
    "normalize.range",
    "normalize.range_16",
)
"""Settings that may differ from those of the export: `ExportedNet` checks what the graph allows."""
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"


class OnnxRunner:
    """A graph in onnxruntime; a `Runner`.

    Args:
        content: the ONNX file.
        name: of the file, for messages.
        device: where to compute.

    Raises:
        WeightsError: onnxruntime cannot read the file, or it is not what `rfla export` writes.
        ConfigError: onnxruntime, or its part for the device, is not installed.
    """

    def __init__(self, content: bytes, name: str, device: torch.device) -> None:
        self.name = name
        about = check_graph(content, name)
        self.session = _session(content, name, device)
        self.shape, self.least_side = InputShape.of(about), int(about["least_side"])
        self.suppresses = bool(about["nms"])

    def run(self, images: Tensor, sizes: Tensor) -> list[Tensor]:
        """Run the graph, see `Runner`."""
        feed = {"images": images.numpy(), "image_sizes": sizes.numpy()}
        try:
            return [torch.from_numpy(array) for array in self.session.run(None, feed)]
        except Exception as error:  # onnxruntime has its own classes, and no common one
            raise WeightsError(f"{self.name}: onnxruntime: {one_line(error)}") from None


def load_exported(path: str | Path, config: ModelConfig, device: torch.device) -> SourceModel:
    """Open an exported network with what its metadata says of it.

    Args:
        path: an ONNX file of `rfla export`.
        config: its settings with other values where a user gave them (`conf=0.3`).
        device: where to compute.

    Raises:
        WeightsError: no such file, not one of ours, or changed since it was written.
        ConfigError: a setting that is fixed in the graph, or onnxruntime is missing.
    """
    metadata = read_metadata(path)
    exported = saved_model_config(metadata["model"], f"{path} (metadata)")
    own, wanted = (flatten(one.model_dump(), ModelConfig) for one in (exported, config))
    for key, setting in wanted.items():
        if key not in FREE and setting.value != own[key].value:
            raise ConfigError(f"{key}: is fixed in {path}; export it again with other weights")
    content = read_regular(path, WeightsError)
    check_seal(content, path)
    names = tuple(metadata["names"])
    runner = OnnxRunner(content, str(path), device)
    net = ExportedNet(runner, len(names), build_limits(exported.test))
    net.limits = build_limits(config.test)
    return SourceModel(
        net, config, names, imgsz=metadata.get("imgsz"), scale=recorded_scale(metadata)
    )


def providers(device: torch.device, available: Collection[str], tensorrt: bool) -> list[Any]:
    """Say which parts of onnxruntime compute, best first.

    Args:
        device: where to compute.
        available: parts that this onnxruntime was built with.
        tensorrt: whether TensorRT itself is installed; onnxruntime names its part without it too.

    Raises:
        ConfigError: there is none for the device.
    """
    wanted = {"cuda": CUDA, "cpu": CPU}.get(device.type)
    if wanted not in available:
        raise ConfigError(
            f"device={device}: this onnxruntime has no provider for it; use device=cpu, or install "
            "onnxruntime-gpu"
        )
    if device.type == "cpu":
        return [CPU]
    place = {"device_id": device.index or 0}
    first = [(TENSORRT, place)] if tensorrt and TENSORRT in available else []
    return [*first, (CUDA, place), CPU]


def _session(content: bytes, name: str, device: torch.device) -> Any:
    onnxruntime = require("onnxruntime")
    chosen = providers(
        device, onnxruntime.get_available_providers(), find_library("nvinfer") is not None
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors come as exceptions
    try:
        # a TensorRT that does not start gives way to CUDA; nothing else is tried again
        again = int(device.type == "cuda" and len(chosen) > 2)
        return onnxruntime.InferenceSession(
            content, options, providers=chosen, enable_fallback=again
        )
    except Exception as error:  # onnxruntime has its own classes, and no common one
        raise WeightsError(f"{name}: onnxruntime: {one_line(error)}") from None
