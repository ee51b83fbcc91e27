"""What an exported file says of itself."""

import json
from collections.abc import Mapping
from typing import Any

from rfla.cfg.verbs import ExportOptions
from rfla.cfg.weights_header import KEY
from rfla.engine.model_source import SourceModel
from rfla.export.input_shape import InputShape
from rfla.models.detector import Detector
from rfla.models.weights import read_metadata
from rfla.sizes import padded_side

STANDALONE = ("names", "imgsz", "export")
"""Entries that also stand alone, for readers in other languages."""
LEAST_SIDES = {"detectors": 96}
"""px: on smaller maps switchable convolutions take another way (`SwitchableConv2d.forward`)."""


def least_side(options: ExportOptions, model: SourceModel) -> int:
    """Return the least height and width of the padded images of a graph of free size, px."""
    assert isinstance(model.net, Detector)
    least = LEAST_SIDES.get(model.config.detector, padded_side(1))
    if options.dynamic and options.format == "torch_export":
        # torch.export takes the side of a map of one cell for a constant.
        least = max(least, padded_side(model.net.neck.strides[-1] + 1))
    return least


def metadata_of(
    options: ExportOptions, model: SourceModel, imgsz: int, shape: InputShape
) -> dict[str, Any]:
    """Say what the weights do, and what the graph is.

    Args:
        options: of the export.
        model: the network.
        imgsz: long side of the images, px; also that of a tile, where scenes are cut.
        shape: of the graph's input.
    """
    assert isinstance(model.net, Detector)
    test, weights = model.config.test, read_metadata(str(options.model))
    return weights | {
        "model": model.config.model_dump(mode="json"),
        "imgsz": imgsz,
        "export": {
            "format": options.format,
            "input": options.input,
            "channels": "rgb",
            "batch": shape.batch,
            "side": shape.side,
            "padded_to": padded_side(1),
            "least_side": least_side(options, model),
            "tile": imgsz,
            "gsd": weights.get("gsd"),
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


def text_entries(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata as JSON texts by name."""
    entries = {KEY: metadata} | {name: metadata[name] for name in STANDALONE if name in metadata}
    return {key: json.dumps(value) for key, value in entries.items()}
