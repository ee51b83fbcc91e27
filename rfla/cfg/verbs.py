"""The keys of the verbs that do not run a model over a data set: each has a few of its own."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from rfla.cfg.base import Names, PathText, Section, ValueRange
from rfla.cfg.foreign import foreign_network
from rfla.cfg.model_schema import AssignerConfig, BackboneConfig, HeadConfig, NeckConfig
from rfla.cfg.setting_layers import flatten, validate
from rfla.cfg.tokens import parse_tokens
from rfla.errors import ConfigError
from rfla.files import unwritable
from rfla.sizes import MAX_PIXELS

Debug = Annotated[
    bool, Field(description="show the full traceback of an error instead of one line")
]


class CompareOptions(Section):
    """Two runs, results or prediction files side by side."""

    a: PathText | None = Field(
        None, description="first detections: a directory of 'rfla val', or a COCO file"
    )
    b: PathText | None = Field(None, description="second one")
    data: PathText | None = Field(
        None,
        description="data set that predictions are evaluated on; left out: the one of the runs",
    )
    split: str | None = Field(
        None, min_length=1, description="split of the data set; left out: the one of the runs"
    )
    draws: int = Field(
        200, ge=10, le=100_000, description="bootstrap samples of images for the intervals"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the bootstrap")
    out: PathText | None = Field(None, description="also write the comparison into this JSON file")
    overwrite: bool = Field(False, description="replace the file if it exists")
    debug: Debug = False


class ImportOptions(Section):
    """Official MMDetection weights to a weights file of rfla."""

    weights: PathText | None = Field(
        None, description="official checkpoint (.pth); its pickle is never executed"
    )
    model: PathText | None = Field(
        None, description="zoo name or model YAML that the checkpoint is for"
    )
    names: Names = Field((), description="class names, if the checkpoint has none")
    out: PathText | None = Field(None, description="file to write (.safetensors)")
    overwrite: bool = Field(False, description="replace the file if it exists")
    debug: Debug = False


class InfoOptions(Section):
    """Parameters, arithmetic, memory and time of a model, or of a backbone alone."""

    model: PathText | None = Field(None, description="zoo name, model YAML, or a .safetensors file")
    imgsz: int | None = Field(
        None,
        ge=32,
        le=16384,
        description="side of the square input in px; left out: 800, of weights what they know",
    )
    classes: int = Field(
        8, ge=1, le=100_000, description="number of classes of a model that is not trained"
    )
    backbone: BackboneConfig = Field(
        BackboneConfig(), description="of the model; without model=, the backbone alone"
    )
    neck: NeckConfig = Field(NeckConfig(), description="of the model")
    head: HeadConfig = Field(HeadConfig(), description="of the model")
    device: str = Field(
        "cpu",
        min_length=1,
        description="cpu, or a GPU number: measure the peak memory of a training step there too",
    )
    debug: Debug = False


class ExportOptions(Section):
    """A trained network as a file that other programs run."""

    model: PathText | None = Field(None, description="weights file (.safetensors) to export")
    format: Literal["onnx", "torch_export", "torchscript"] = Field(
        "onnx", description="ONNX, or a program of torch (.pt2, .torchscript)"
    )
    out: PathText | None = Field(None, description="file to write; left out: beside the weights")
    half: bool = Field(
        False, description="float16 for backbone, neck and heads; boxes are decoded in float32"
    )
    int8: bool = Field(
        False, description="eight-bit convolutions, their ranges measured on images of data"
    )
    nms: bool = Field(True, description="NMS as a part of the graph, with max_det places for boxes")
    dynamic: bool = Field(
        True, description="any number of images of any size; false: batch images of imgsz px"
    )
    batch: int = Field(1, ge=1, le=1024, description="images, with dynamic=false")
    imgsz: int | None = Field(
        None, ge=32, le=16384, description="side in px; left out: what the weights were trained at"
    )
    input: Literal["uint8", "float"] = Field(
        "uint8", description="type of the pixels, RGB from 0 to 255"
    )
    opset: int = Field(20, ge=16, le=20, description="version of ONNX's operators")
    conf: float | None = Field(
        None, ge=0, le=1, description="lowest score that the graph keeps; left out: test.conf"
    )
    iou: float | None = Field(
        None, gt=0, le=1, description="IoU above which NMS drops a box; left out: test.nms_iou"
    )
    max_det: int | None = Field(
        None, ge=1, le=100_000, description="most boxes of an image; left out: test.max_det"
    )
    data: PathText | None = Field(
        None,
        description="data set to compare on too; with half or int8 it shows what they cost by size",
    )
    split: str = Field("val", min_length=1, description="split that is compared and evaluated")
    calibration_split: str = Field(
        "train", min_length=1, description="int8: split that ranges are measured on"
    )
    calibration_images: int = Field(
        64, ge=1, le=10_000, description="int8: images of it, evenly spread"
    )
    max_loss: float = Field(
        0.05, ge=0, le=1, description="largest share of AP, of any size, that half or int8 may cost"
    )
    force: bool = Field(False, description="write it whatever half or int8 cost")
    overwrite: bool = Field(False, description="replace the file if it exists")
    debug: Debug = False


class BenchmarkOptions(Section):
    """The forms of a trained network side by side: size, time and AP on one data set."""

    model: PathText | None = Field(None, description="weights file (.safetensors)")
    data: PathText | None = Field(None, description="data set to evaluate on")
    split: str = Field("val", min_length=1, description="split of it")
    calibration_split: str = Field(
        "train", min_length=1, description="split that the ranges of int8 are measured on"
    )
    formats: Names = Field(
        ("torch", "onnx", "onnx-half", "onnx-int8", "torch_export", "torchscript"),
        min_length=1,
        description="forms to compare",
    )
    fraction: float = Field(
        1.0, gt=0, le=1e9, description="share of the images; above 1 a number of images"
    )
    imgsz: int | None = Field(
        None, ge=32, le=16384, description="long side in px; left out: as trained"
    )
    batch: int = Field(1, ge=1, le=1024, description="images at a time")
    device: str = Field("cpu", min_length=1, description="where to compute: cpu, or a GPU number")
    out: PathText | None = Field(None, description="also write the metrics into this JSON file")
    overwrite: bool = Field(False, description="replace the file if it exists")
    debug: Debug = False


class CopyOptions(Section):
    """A settings file to start from."""

    out: PathText = Field("default_copy.yaml", min_length=1, description="file to write")
    overwrite: bool = Field(False, description="replace the file if it exists")
    debug: Debug = False


class ConvertOptions(Section):
    """Any of the field's annotation formats to any other, whole or in tiles."""

    format: str | None = Field(
        None,
        description="format of the source: coco, yolo, voc, visdrone, dota, tinyperson, xview, "
        "csv, cvat, soda; aitod-xview builds AI-TOD from its parts",
    )
    source: PathText | None = Field(None, description="directory or file to read")
    out: PathText | None = Field(None, description="directory to write")
    to: str = Field(
        "coco",
        description="format to write: coco or yolo for rfla, any other of format= for other tools",
    )
    split: str | None = Field(
        None, description="convert only this split, or name the source's only one"
    )
    names: Names = Field(
        (),
        description="class names in label order, or a file listing them, for formats without names",
    )
    annotations: PathText | None = Field(
        None, description="annotation file or directory, if it is not in source"
    )
    tile: int = Field(
        0,
        ge=0,
        le=65536,
        description="cut large images into tiles of this side in px; 0: keep them whole",
    )
    overlap: int | None = Field(
        None, ge=0, le=65536, description="overlap of tiles in px; left out: a quarter of tile"
    )
    keep_visible: float = Field(
        0.5,
        ge=0,
        le=1,
        description="visible share of a box from which it stays an object in a tile",
    )
    empty_tiles: float = Field(1.0, ge=0, le=1, description="share of the empty tiles to keep")
    range: ValueRange | None = Field(
        None,
        description="values that become 0 and 255 in images of more than 8 bits that are written "
        "anew; left out: one range for all 16-bit images, and for other types that of each image",
    )
    xview: PathText | None = Field(None, description="aitod-xview: directory of the xView scenes")
    wo_xview: PathText | None = Field(
        None, description="aitod-xview: directory of the images that are not from xView"
    )
    channel_order: Literal["official", "rgb"] = Field(
        "official",
        description="aitod-xview: official (red and blue swapped, as in the official tool) or rgb",
    )
    workers: int = Field(4, ge=1, le=256, description="threads or processes that write images")
    max_pixels: int = Field(
        MAX_PIXELS, ge=1, le=10**12, description="largest image to decode whole, in pixels"
    )
    exist_ok: bool = Field(False, description="replace out if an earlier conversion wrote it")
    debug: Debug = False


class InspectOptions(Section):
    """A check of a data set before training, and of what a model's assigner makes of it."""

    data: PathText | None = Field(None, description="data set: a name, a data.yaml, or a directory")
    split: str | None = Field(None, min_length=1, description="split to look at; left out: all")
    model: PathText | None = Field(
        None, description="also report what this model's assigner does with the boxes"
    )
    imgsz: int = Field(
        800,
        ge=32,
        le=16384,
        description="long side in px at which sizes and the assigner are checked; left out: "
        "imgsz of the model or the data, else 800",
    )
    assigner: AssignerConfig = Field(
        AssignerConfig(), description="changes to the model's assigner, for the report"
    )
    fix: bool = Field(False, description="write a repaired copy to out")
    project: PathText = Field("runs", min_length=1, description="directory that holds the runs")
    name: str = Field(
        "inspect", min_length=1, description="directory of the pictures inside project"
    )
    out: PathText | None = Field(None, description="directory of the repaired copy")
    workers: int = Field(4, ge=1, le=256, description="threads that open images")
    max_pixels: int = Field(
        MAX_PIXELS, ge=1, le=10**12, description="largest image that is decoded, in pixels"
    )
    debug: Debug = False


class FieldOptions(Section):
    """Receptive fields of a model, beside the boxes of a data set."""

    model: PathText | None = Field(None, description="zoo name, model YAML, or a .safetensors file")
    data: PathText | None = Field(
        None, description="data set of images and boxes; left out: random images, no boxes"
    )
    split: str = Field("train", min_length=1, description="split of it")
    images: int = Field(8, ge=1, le=10_000, description="images to measure on, spread over it")
    imgsz: int | None = Field(
        None,
        ge=32,
        le=16384,
        description="long side in px; left out: as trained, as the data set recommends, else 512",
    )
    pretrained: bool = Field(
        True, description="without weights: start from ImageNet's, as a training does"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of random weights and images")
    backbone: BackboneConfig = Field(BackboneConfig(), description="changes to the backbone")
    neck: NeckConfig = Field(NeckConfig(), description="changes to the pyramid")
    assigner: AssignerConfig = Field(AssignerConfig(), description="changes to the assigner")
    device: str = Field("cpu", min_length=1, description="where to compute: cpu, or a GPU number")
    max_pixels: int = Field(
        MAX_PIXELS, ge=1, le=10**12, description="largest image to decode, in pixels"
    )
    project: PathText = Field("runs", min_length=1, description="directory that holds the runs")
    name: str = Field("rf", min_length=1, description="directory of the files inside project")
    exist_ok: bool = Field(False, description="write into that directory if it exists")
    debug: Debug = False


OPTIONS: dict[str, type[Section]] = {
    "compare": CompareOptions,
    "benchmark": BenchmarkOptions,
    "convert": ConvertOptions,
    "export": ExportOptions,
    "import": ImportOptions,
    "inspect": InspectOptions,
    "info": InfoOptions,
    "rf": FieldOptions,
    "copy-cfg": CopyOptions,
}
Options = TypeVar("Options", bound=Section)


def load_options(tokens: Sequence[str], schema: type[Options]) -> tuple[Options, dict[str, Any]]:
    """Read the tokens of a verb with keys of its own.

    Returns:
        The checked options, and what was given, as dotted keys.

    Raises:
        ConfigError: an unknown key or a wrong value, in one line.
    """
    layer = flatten(parse_tokens(tokens, schema), schema)
    return validate(schema, layer), {name: setting.value for name, setting in layer.items()}


def checked_options(values: Mapping[str, Any], schema: type[Options]) -> Options:
    """Check the keys of a verb that come from Python.

    Raises:
        ConfigError: an unknown key or a wrong value, in one line.
    """
    return validate(schema, flatten(values, schema))


def refuse_foreign_weights(weights: str) -> None:
    """Refuse weights that cannot be imported, those of another tool or at an address, by name.

    Raises:
        ConfigError: with what there is instead.
    """
    address = "an address, which is not downloaded; give a file"
    answer = address if "://" in weights else foreign_network(weights)
    if answer:
        raise ConfigError(f"weights={weights}: {answer}")


def check_out(out: str | Path, overwrite: bool, suffix: str = "") -> None:
    """Refuse a file that the user may want, or that cannot be written, before minutes of work.

    Args:
        out: the file.
        overwrite: whether it may be replaced.
        suffix: that its name must have; "" for any.

    Raises:
        ConfigError: what is wrong with it.
    """
    path = Path(out)
    if suffix and path.suffix.lower() != suffix:
        raise ConfigError(f"out={out}: a {suffix} file is needed")
    if os.path.lexists(path) and not path.is_dir() and not overwrite:
        raise ConfigError(f"{out} exists already; give another one by out=, or overwrite=true")
    wrong = f"{out} is a directory" if path.is_dir() else unwritable(path.parent)
    if wrong:
        raise ConfigError(f"out={out}: {wrong}")


def required(options: Section, verb: str, **needs: str) -> None:
    """Refuse to go on without the named keys, saying what each is and how the verb is typed.

    Args:
        options: what the user gave.
        verb: for the message.
        needs: each key that must be given, with an example value.

    Raises:
        ConfigError: names the first key that is missing.
    """
    example = " ".join(f"{key}={value}" for key, value in needs.items())
    for key in needs:
        if getattr(options, key) in (None, ""):
            description = type(options).model_fields[key].description
            raise ConfigError(
                f"{key} is missing: {description}; for example: rfla {verb} {example}"
            )
