"""`rfla export`: weights in, a file for other programs out, checked against torch."""

import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from rfla.cfg import Config, load_config, model_part
from rfla.cfg.model_schema import ModelConfig
from rfla.cfg.verbs import ExportOptions, refuse_existing
from rfla.data import load_data_spec, load_index
from rfla.engine.model_source import SourceModel, load_trained
from rfla.errors import ConfigError
from rfla.export.deform import check_opset
from rfla.export.extra import require
from rfla.export.graph import DetectionGraph
from rfla.export.onnx_file import InputShape, onnx_bytes
from rfla.export.parity import FLOAT16, FLOAT32, Parity, compare, fitted, painted_images
from rfla.export.session import OnnxNet
from rfla.files import write_atomically
from rfla.models.detector import Detector
from rfla.models.limits import build_limits
from rfla.models.weights import read_metadata
from rfla.sizes import padded_side

REAL_IMAGES = 4
"""Images of `data=` that an export is compared on."""
DEFAULT_SIDE = 800
"""px, of weights that do not say at which size they were trained."""


def export(options: ExportOptions) -> str:
    """Export as `rfla export` does.

    Args:
        options: `model` is needed.

    Returns:
        What was written and how it compares, for the person.

    Raises:
        RflaError: anything that the person can mend, in one line; nothing is written then.
    """
    for library in ("onnx", "onnxruntime"):
        require(library)
    weights = str(options.model)
    out = Path(options.out or Path(weights).with_suffix(".onnx"))
    if out.suffix.lower() != ".onnx":
        raise ConfigError(f"out={out}: the name of an ONNX file ends in .onnx")
    refuse_existing(str(out), options.overwrite)
    cfg = _settings(options)
    model = load_trained(weights, model_part(cfg))
    check_opset(model.config.detector, options.opset)

    started = perf_counter()
    side = options.imgsz or model.imgsz or DEFAULT_SIDE
    content = _written(options, model, side)
    seconds = perf_counter() - started
    parity = _checked(options, model, side, content, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, content)
    return (
        f"{parity.line()}\nwrote {out}: {len(content) / 1e6:.1f} MB, opset {options.opset}, "
        f"in {seconds:.0f} s; try: rfla predict model={out} source=..."
    )


def _settings(options: ExportOptions) -> Config:
    """What the graph keeps of the detections, as `rfla val` would set it."""
    keys = ("model", "conf", "iou", "max_det")
    given = {key: getattr(options, key) for key in keys if getattr(options, key) is not None}
    return load_config(given)


def _written(options: ExportOptions, model: SourceModel, side: int) -> bytes:
    """Trace the network."""
    graph = _graph(options, model)
    fixed = not options.dynamic
    shape = InputShape(
        batch=options.batch if fixed else None,
        side=padded_side(side) if fixed else None,
        as_float=options.input == "float",
    )
    return onnx_bytes(graph, shape, options.opset, _metadata(options, model, side))


def _graph(options: ExportOptions, model: SourceModel) -> DetectionGraph:
    assert isinstance(model.net, Detector)
    return DetectionGraph(
        model.net,
        model.config.normalize,
        build_limits(model.config.test),
        suppress=options.nms,
        half=options.half,
    )


def _metadata(options: ExportOptions, model: SourceModel, side: int) -> dict[str, Any]:
    """What the file says of itself: what the weights do, and what the graph is."""
    test = model.config.test
    return read_metadata(str(options.model)) | {
        "model": model.config.model_dump(mode="json"),
        "imgsz": side,
        "export": {
            "input": options.input,
            "channels": "rgb",
            "padded_to": padded_side(1),
            "half": options.half,
            "nms": options.nms,
            "dynamic": options.dynamic,
            "conf": test.conf,
            "score_thr": test.score_thr,
            "iou": test.nms_iou,
            "max_det": test.max_det,
        },
    }


def _checked(
    options: ExportOptions, model: SourceModel, side: int, content: bytes, out: Path
) -> Parity:
    """Compare the file with the network.

    Raises:
        ConfigError: they do not find the same.
    """
    assert isinstance(model.net, Detector)
    rules = FLOAT16 if options.half else FLOAT32
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "candidate.onnx")
        path.write_bytes(content)
        exported = OnnxNet(path, build_limits(model.config.test), torch.device("cpu"))
        painted = painted_images(side, fixed=not options.dynamic)
        batches = painted + [[image] for image in _real_images(options, model.config, side)]
        parity = compare(model.net, model.config.normalize, exported, batches, rules)
    parity.require(rules, str(out))
    return parity


def _real_images(options: ExportOptions, config: ModelConfig, side: int) -> list[np.ndarray]:
    """A few images of `data=`, at the size that the network sees."""
    if options.data is None:
        return []
    index = load_index(load_data_spec(options.data), options.split, need_images=True)
    rows = np.linspace(0, len(index) - 1, min(REAL_IMAGES, len(index))).astype(int)
    return [
        fitted(index.read_image(row, value_range=config.normalize.range), side)
        for row in rows.tolist()
    ]
