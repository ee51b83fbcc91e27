"""The forms that a network is exported in: how each is written, run and compared with torch."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from rfla.cfg.verbs import ExportOptions
from rfla.data import Annotations, load_data_spec, load_index
from rfla.data.pixel_range import range_of
from rfla.engine.model_source import SourceModel
from rfla.errors import ConfigError
from rfla.export.exported_net import ExportedNet, Runner
from rfla.export.graph import DetectionGraph
from rfla.export.input_shape import InputShape
from rfla.export.metadata import least_side, metadata_of
from rfla.export.onnx_file import onnx_bytes
from rfla.export.parity import (
    FLOAT16,
    FLOAT32,
    Parity,
    compare,
    fitted,
    painted_images,
    sure_of_something,
)
from rfla.export.quantize import quantized
from rfla.export.session import OnnxRunner
from rfla.export.torch_file import program_bytes, run_program, run_script, script_bytes
from rfla.models.detector import Detector
from rfla.models.limits import build_limits
from rfla.sizes import padded_side

REAL_IMAGES = 4
"""Images of `data=` that an export is compared on."""
DEFAULT_SIDE = 800
"""px, of weights that do not say at which size they were trained."""


class Form(NamedTuple):
    """A form of a file.

    Attributes:
        suffix: of its name.
        libraries: that writing and comparing need.
        write: the file of a graph, its input, its metadata and the version of ONNX's operators.
        run: a runner of a file that was just written, of its name and a device.
    """

    suffix: str
    libraries: tuple[str, ...]
    write: Callable[[DetectionGraph, InputShape, Mapping[str, Any], int], bytes]
    run: Callable[[bytes, str, torch.device], Runner]


FORMS = {
    "onnx": Form(".onnx", ("onnx", "onnxruntime"), onnx_bytes, OnnxRunner),
    "torch_export": Form(".pt2", (), program_bytes, run_program),
    "torchscript": Form(".torchscript", (), script_bytes, run_script),
}


def side_of(options: ExportOptions, model: SourceModel) -> int:
    """Long side of the images, px."""
    return options.imgsz or model.imgsz or DEFAULT_SIDE


def refuse_impossible(options: ExportOptions, model: SourceModel) -> None:
    """Refuse options that do not fit this network.

    Raises:
        ConfigError: with what to do instead.
    """
    if options.half and model.config.detector == "detectors":
        raise ConfigError(
            "half=true: detectors computes its deformable convolutions in float32; "
            "export it without half"
        )
    least = least_side(options, model)
    if options.dynamic and side_of(options, model) < least:
        raise ConfigError(
            f"imgsz={side_of(options, model)}: {model.config.detector} of free size takes images "
            f"of {least} px and more; give a larger imgsz, or dynamic=false"
        )


def check_data(options: ExportOptions) -> None:
    """Refuse data, or splits, that there are not, before minutes of work.

    Raises:
        DataError: no such data set or split.
    """
    if options.data is not None:
        spec = load_data_spec(options.data)
        spec.parts(options.split)
        if options.int8:
            spec.parts(options.calibration_split)


def exported_bytes(options: ExportOptions, model: SourceModel) -> bytes:
    """Trace the network, in float32 or float16.

    Raises:
        ConfigError: settings that this network cannot be exported with.
    """
    refuse_impossible(options, model)
    side, fixed = side_of(options, model), not options.dynamic
    shape = InputShape(
        batch=options.batch if fixed else None,
        side=padded_side(side) if fixed else None,
        as_float=options.input == "float",
    )
    metadata = metadata_of(options, model, side, shape)
    form = FORMS[options.format]
    return form.write(graph_of(options, model), shape, metadata, options.opset)


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


def exported_model(
    options: ExportOptions,
    model: SourceModel,
    content: bytes,
    name: str,
    device: torch.device | None = None,
) -> SourceModel:
    """The network with a file that was just written in its place."""
    runner = FORMS[options.format].run(content, name, device or torch.device("cpu"))
    net = ExportedNet(runner, len(model.names), build_limits(model.config.test))
    return replace(model, net=net)


def check_parity(options: ExportOptions, model: SourceModel, content: bytes, where: str) -> Parity:
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
    rules = FLOAT16 if options.half else FLOAT32
    exported = exported_model(options, model, content, where).net
    assert isinstance(exported, ExportedNet)
    batches = _images_to_compare(options, model)
    parity = compare(model.net, model.config.normalize, exported, batches, rules)
    if not (options.half and options.force):
        parity.require(rules, where, _instead(options, side_of(options, model)))
    return parity


def refuse_unsure(options: ExportOptions, model: SourceModel) -> None:
    """Refuse half precision of a network that is sure of nothing: nobody could judge it.

    Raises:
        ConfigError: with what to do instead.
    """
    refuse_impossible(options, model)
    assert isinstance(model.net, Detector)
    batches, lowest = _images_to_compare(options, model), FLOAT16.lowest
    if not sure_of_something(model.net, model.config.normalize, batches, lowest):
        raise ConfigError(
            f"half=true: no detection in {sum(map(len, batches))} images scores {lowest} or more, "
            "so nothing can be compared; data= names images with objects; "
            "force=true writes it all the same"
        )


def _images_to_compare(options: ExportOptions, model: SourceModel) -> list[list[np.ndarray]]:
    """Batches of painted images, and of a few images of `data=`."""
    side = side_of(options, model)
    batches = painted_images(side, fixed=not options.dynamic)
    if options.data is not None:
        real = images_of(split_of(options.data, options.split), model, side, REAL_IMAGES)
        batches += [[image] for image in real]
    return batches


def _instead(options: ExportOptions, side: int) -> str:
    """What to type in place of an export that finds something else."""
    if options.half:
        return "export it without half, or force=true writes it all the same"
    if options.dynamic:
        return f"a network for one size of images needs dynamic=false imgsz={padded_side(side)}"
    return (
        "if scores are nearly equal, train longer; if they are not, please report it: it is a "
        "defect of rfla"
    )


def quantized_bytes(options: ExportOptions, model: SourceModel, content: bytes) -> bytes:
    """Quantise a file in float32, with ranges measured on images of `calibration_split`."""
    index = split_of(str(options.data), options.calibration_split)
    images = images_of(index, model, side_of(options, model), options.calibration_images)
    return quantized(content, images, options.input == "float")


def split_of(data: str, split: str) -> Annotations:
    """The images of a split."""
    return load_index(load_data_spec(data), split)


def images_of(index: Annotations, model: SourceModel, side: int, count: int) -> list[np.ndarray]:
    """A few images of a split, evenly spread, at the size that the network sees."""
    rows = np.linspace(0, len(index) - 1, min(count, len(index))).astype(int)
    index = replace(index, value_range=range_of(model.config.normalize))
    return [fitted(index.read_image(row), side) for row in rows.tolist()]
