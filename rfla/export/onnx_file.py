"""Trace a network into an ONNX file.

Shapes: B images, (H, W) px of the padded batch.
"""

import io
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from rfla.cfg.onnx_header import sealed
from rfla.errors import ConfigError, one_line
from rfla.export import deform
from rfla.export.extra import require
from rfla.export.graph import DetectionGraph
from rfla.export.input_shape import InputShape
from rfla.export.metadata import text_entries


def onnx_bytes(
    graph: DetectionGraph, shape: InputShape, metadata: Mapping[str, Any], opset: int
) -> bytes:
    """Return an ONNX file of a network.

    The exporter that traces is used, not the one of `torch.export`: it takes a tenth of the time,
    and top-k over a free number of points, and counts of RoIs that depend on the image, need no
    proof that they fit.

    Args:
        graph: the network.
        shape: of its input.
        metadata: what the file says of itself, as a weights file does.
        opset: version of ONNX's operators.

    Raises:
        ConfigError: onnx is not installed, or this torch cannot write the graph.
    """
    onnx = require("onnx")
    deform.register()
    outputs = ["boxes", "scores", "labels", "counts"] if graph.suppress else ["boxes", "scores"]
    free = shape.free_axes()
    written = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants that are meant to be constant
        try:
            torch.onnx.export(
                graph,
                shape.example(),
                written,  # type: ignore[arg-type]  # the exporter that traces takes it
                dynamo=False,
                opset_version=opset,
                input_names=["images", "image_sizes"],
                output_names=outputs,
                dynamic_axes=free | dict.fromkeys(outputs, free["image_sizes"]),
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            reason = one_line(error)
            raise ConfigError(f"torch {torch.__version__} cannot export this: {reason}") from None
    model = onnx.load_model_from_string(written.getvalue())
    onnx.helper.set_model_props(model, text_entries(metadata))
    onnx.checker.check_model(model)
    return sealed(model.SerializeToString())
