"""Eight-bit convolutions, their ranges measured on images.

Convolutions alone are quantised, each filter with a scale of its own, and not those that predict
classes and boxes: a step of a coded side would be whole pixels. Decoding stays in float32.
"""

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rfla.cfg.onnx_header import DIGEST, sealed
from rfla.data.stacking import stack_images
from rfla.export.extra import require

PREDICTORS = frozenset(
    ["conv_cls", "conv_reg", "conv_centerness", "retina_cls", "retina_reg", "rpn_cls", "rpn_reg"]
)
"""Layers of the heads that predict, by their names in the networks."""


def quantized(content: bytes, images: Iterable[np.ndarray], as_float: bool) -> bytes:
    """Return an ONNX file whose convolutions compute in int8.

    Args:
        content: the file in float32.
        images: (H, W, 3) uint8 RGB at the size that the network sees; the ranges are theirs.
        as_float: whether the graph takes float32 pixels.

    Raises:
        ConfigError: onnx or onnxruntime is not installed.
    """
    onnx, tools = require("onnx"), require("onnxruntime.quantization")
    model = onnx.load_model_from_string(content)
    entries = {entry.key: entry.value for entry in model.metadata_props if entry.key != DIGEST}
    _own_biases(onnx, model)
    predictors = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and PREDICTORS.intersection(node.name.split("/"))
    ]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "int8.onnx")
        with _without_advice():
            tools.quantize_static(
                model,
                path,
                _reader(tools, _feeds(images, as_float)),
                quant_format=tools.QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
                nodes_to_exclude=predictors,
            )
        result = onnx.load(path)
    onnx.helper.set_model_props(result, entries)
    return sealed(result.SerializeToString())


def _own_biases(onnx: Any, model: Any) -> None:
    """Give each convolution a bias of its own.

    A head that all levels share has one, but an int8 bias is in steps of its input's range, which
    differs from level to level.
    """
    biases = {entry.name: entry for entry in model.graph.initializer}
    taken: set[str] = set()
    for node in model.graph.node:
        if node.op_type != "Conv" or len(node.input) < 3 or node.input[2] not in biases:
            continue
        name = node.input[2]
        if name in taken:
            copy = onnx.TensorProto()
            copy.CopyFrom(biases[name])
            copy.name = node.input[2] = f"{name}_{len(taken)}"
            model.graph.initializer.append(copy)
        taken.add(node.input[2])


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep back what onnxruntime's tools advise by the root logger."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


def _feeds(images: Iterable[np.ndarray], as_float: bool) -> Iterator[dict[str, np.ndarray]]:
    """The input of the graph for each image."""
    for image in images:
        pixels, sizes = stack_images([image])
        yield {
            "images": pixels.float().numpy() if as_float else pixels.numpy(),
            "image_sizes": np.array(sizes, np.int64),
        }


def _reader(tools: Any, feeds: Iterator[dict[str, np.ndarray]]) -> Any:
    """The feeds in the form that onnxruntime asks for."""

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(feeds, None)

    return Reader()
