"""The ONNX file of a network in float32, float16 or int8, and its comparison with the network."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rfla.cfg.verbs import ExportOptions
from rfla.data import Annotations, load_data_spec, load_index
from rfla.engine.model_source import SourceModel
from rfla.errors import ConfigError
from rfla.export.graph import DetectionGraph
from rfla.export.onnx_file import InputShape, onnx_bytes
from rfla.export.parity import FLOAT16, FLOAT32, Parity, compare, fitted, painted_images
from rfla.export.quantize import quantized
from rfla.export.session import OnnxNet
from rfla.models.detector import Detector
from rfla.models.limits import build_limits
from rfla.models.weights import read_metadata
from rfla.sizes import padded_side

REAL_IMAGES = 4
"""Images of `data=` that an export is compared on."""
DEFAULT_SIDE = 800
"""px, of weights that do not say at which size they were trained."""


def side_of(options: ExportOptions, model: SourceModel) -> int:
    """Long side of the images, px."""
    return options.imgsz or model.imgsz or DEFAULT_SIDE


def written(options: ExportOptions, model: SourceModel) -> bytes:
    """Trace the network, in float32 or float16.

    Raises:
        ConfigError: settings that this network cannot be exported with.
    """
    if options.half and model.config.detector == "detectors":
        raise ConfigError(
            "half=true: detectors computes its deformable convolutions in float32; "
            "export it without half"
        )
    fixed = not options.dynamic
    shape = InputShape(
        batch=options.batch if fixed else None,
        side=padded_side(side_of(options, model)) if fixed else None,
        as_float=options.input == "float",
    )
    return onnx_bytes(graph_of(options, model), shape, options.opset, _metadata(options, model))


def graph_of(options: ExportOptions, model: SourceModel) -> DetectionGraph:
    """The module that is traced."""
    assert isinstance(model.net, Detector)
    return DetectionGraph(
        model.net,
        model.config.normalize,
        build_limits(model.config.test),
        suppress=options.nms,
        half=options.half,
    )


def _metadata(options: ExportOptions, model: SourceModel) -> dict[str, Any]:
    """What the file says of itself: what the weights do, and what the graph is."""
    assert isinstance(model.net, Detector)
    test = model.config.test
    return read_metadata(str(options.model)) | {
        "model": model.config.model_dump(mode="json"),
        "imgsz": side_of(options, model),
        "export": {
            "input": options.input,
            "channels": "rgb",
            "padded_to": padded_side(1),
            "strides": list(model.net.neck.strides),
            "half": options.half,
            "int8": options.int8,
            "nms": options.nms,
            "dynamic": options.dynamic,
            "conf": test.conf,
            "score_thr": test.score_thr,
            "iou": test.nms_iou,
            "max_det": test.max_det,
        },
    }


def compared(options: ExportOptions, model: SourceModel, content: bytes, where: str) -> Parity:
    """Compare a file with the network.

    Args:
        options: of the export.
        model: the network.
        content: the file.
        where: names it in messages.

    Raises:
        ConfigError: they do not find the same.
    """
    assert isinstance(model.net, Detector)
    side = side_of(options, model)
    rules = FLOAT16 if options.half else FLOAT32
    batches = painted_images(side, fixed=not options.dynamic)
    if options.data is not None:
        real = images_of(split_of(options.data, options.split), model, side, REAL_IMAGES)
        batches += [[image] for image in real]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "candidate.onnx")
        path.write_bytes(content)
        exported = OnnxNet(path, build_limits(model.config.test), torch.device("cpu"))
        parity = compare(model.net, model.config.normalize, exported, batches, rules)
    if not (options.half and options.force):
        parity.require(rules, where)
    return parity


def in_int8(options: ExportOptions, model: SourceModel, content: bytes) -> bytes:
    """Quantise a file in float32, with ranges measured on images of `calibration_split`."""
    index = split_of(str(options.data), options.calibration_split)
    images = images_of(index, model, side_of(options, model), options.calibration_images)
    return quantized(content, images, options.input == "float")


def split_of(data: str, split: str) -> Annotations:
    """The images of a split."""
    return load_index(load_data_spec(data), split, need_images=True)


def images_of(index: Annotations, model: SourceModel, side: int, count: int) -> list[np.ndarray]:
    """A few images of a split, evenly spread, at the size that the network sees."""
    rows = np.linspace(0, len(index) - 1, min(count, len(index))).astype(int)
    value_range = model.config.normalize.range
    return [fitted(index.read_image(row, value_range=value_range), side) for row in rows.tolist()]
