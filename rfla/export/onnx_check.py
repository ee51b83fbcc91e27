"""What an ONNX file of a stranger must not do: read other files, call other code, ask for the moon.

`rfla export` writes one file with operators of the standard alone. onnxruntime would follow paths
to files with weights; code of others it loads only if the program names it, which rfla never does.
"""

import json
from collections.abc import Iterator
from typing import Any

from rfla.cfg.weights_header import KEY
from rfla.errors import WeightsError
from rfla.export.extra import require

INPUTS = ["images", "image_sizes"]
OUTPUTS = ["boxes", "scores", "labels", "counts"]


def check_graph(content: bytes, name: str) -> dict[str, Any]:
    """Look through an ONNX file before it is run.

    Args:
        content: the file.
        name: of the file, for messages.

    Returns:
        The entry `export` of its metadata.

    Raises:
        WeightsError: it is none, or not as `rfla export` writes it.
    """
    onnx = require("onnx")
    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # of the protobuf that onnx brings
        raise WeightsError(f"{name}: not an ONNX file, or cut off") from None
    for message in _messages(model):
        kind = type(message).__name__
        if kind == "TensorProto" and message.data_location == onnx.TensorProto.EXTERNAL:
            raise WeightsError(f"{name}: has weights in another file, which is not read")
        if kind == "NodeProto" and message.domain not in ("", "ai.onnx"):
            raise WeightsError(
                f"{name}: has operators of '{message.domain[:40]}'; only those of ONNX are run"
            )
        if kind == "FunctionProto":
            raise WeightsError(f"{name}: has functions of its own; only operators of ONNX are run")
    about = _about(model, name)
    outputs = OUTPUTS if about["nms"] else OUTPUTS[:2]
    ends = [[value.name for value in values] for values in (model.graph.input, model.graph.output)]
    if ends != [INPUTS, outputs]:
        raise WeightsError(f"{name}: its inputs and outputs are not those of 'rfla export'")
    return about


def _messages(message: Any) -> Iterator[Any]:
    """Yield a protobuf message and all messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if hasattr(value, "__len__") else [value]:
                yield from _messages(part)


def _about(model: Any, name: str) -> dict[str, Any]:
    """Return the metadata that the graph is run by, checked."""
    text = {entry.key: entry.value for entry in model.metadata_props}.get(KEY, "")
    try:
        about = json.loads(text)["export"]
        batch, side, least = (about[key] for key in ("batch", "side", "least_side"))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise WeightsError(f"{name}: its metadata does not say what the graph takes") from None
    bounds = ((batch, 1024, True), (side, 16384, True), (least, 1024, False))
    if not all(_within(value, high, optional) for value, high, optional in bounds):
        raise WeightsError(f"{name}: absurd sizes of its input: {batch} images of {side} px"[:200])
    if about.get("input") not in ("uint8", "float") or not isinstance(about.get("nms"), bool):
        raise WeightsError(f"{name}: its metadata does not say what the graph takes")
    return dict(about)


def _within(value: object, high: int, optional: bool) -> bool:
    return (optional and value is None) or (type(value) is int and 1 <= value <= high)
