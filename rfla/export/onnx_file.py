"""Trace a network into an ONNX file.

Shapes: B images, (H, W) px of the padded batch.
"""

import io
import json
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rfla.cfg.weights_header import KEY
from rfla.errors import ConfigError
from rfla.export import deform
from rfla.export.extra import require
from rfla.export.graph import DetectionGraph

TRACED_SIDE = 256
"""px: side of the images that a graph of free size is traced with. C5 has 8 cells of it, enough for
every convolution of DetectoRS to take the way that larger images take."""


class InputShape(NamedTuple):
    """The input of a graph.

    Attributes:
        batch: images; None: any number.
        side: height and width, px; None: any multiples of 32.
        as_float: float32 pixels, and not uint8.
    """

    batch: int | None = None
    side: int | None = None
    as_float: bool = False

    def example(self) -> tuple[Tensor, Tensor]:
        """Images and sizes to trace with."""
        batch, side = self.batch or 2, self.side or TRACED_SIDE
        images = torch.randint(
            0, 256, (batch, 3, side, side), generator=torch.Generator().manual_seed(0)
        )
        sizes = torch.full((batch, 2), side, dtype=torch.int64)
        return images.to(torch.float32 if self.as_float else torch.uint8), sizes

    def free_axes(self) -> dict[str, dict[int, str]]:
        """Names of the free dimensions of each input and output."""
        images: dict[int, str] = {} if self.batch else {0: "batch"}
        if self.side is None:
            images |= {2: "height", 3: "width"}
        others = {} if self.batch else {0: "batch"}
        names = ("image_sizes", "boxes", "scores", "labels", "counts")
        return {"images": images} | {name: dict(others) for name in names}


def onnx_bytes(
    graph: DetectionGraph, shape: InputShape, opset: int, metadata: Mapping[str, Any]
) -> bytes:
    """Return an ONNX file of a network.

    The exporter that traces is used, not the one of `torch.export`: it takes a tenth of the time,
    and top-k over a free number of points, and counts of RoIs that depend on the image, need no
    proof that they fit.

    Args:
        graph: the network.
        shape: of its input.
        opset: version of ONNX's operators.
        metadata: what the file says of itself, as a weights file does. Its entries `names`,
            `imgsz` and `export` also stand alone, for readers in other languages.

    Raises:
        ConfigError: onnx is not installed, or this torch cannot write the graph.
    """
    onnx = require("onnx")
    deform.register()
    outputs = ["boxes", "scores", "labels", "counts"] if graph.suppress else ["boxes", "scores"]
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
                dynamic_axes={
                    name: axes
                    for name, axes in shape.free_axes().items()
                    if name in ("images", "image_sizes", *outputs)
                },
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(f"torch {torch.__version__} cannot export this: {reason}") from None
    model = onnx.load_model_from_string(written.getvalue())
    entries = {KEY: metadata} | {
        name: metadata[name] for name in ("names", "imgsz", "export") if name in metadata
    }
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in entries.items()})
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
