"""`rfla rf`: the receptive fields of a model, theoretical, measured and used, and whom they serve.

Shapes: L pyramid levels, G boxes. Boxes are xyxy px of the network's input.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rfla.assign import HierarchicalAssigner, receptive_field_distance
from rfla.cfg import Config, load_config, model_part
from rfla.cfg.preflight import check_backbone, check_project
from rfla.cfg.verbs import FieldOptions
from rfla.cfg.weights_header import is_exported, is_weights
from rfla.data import Annotations, load_data_spec, load_index
from rfla.data.annotations import objects_per_image
from rfla.data.pixel_range import range_of
from rfla.data.record import is_object
from rfla.data.resize import resized_shape
from rfla.engine.console import make_console
from rfla.engine.device import seed_everything, select_device
from rfla.engine.field_measurement import field_images
from rfla.engine.run_dir import create_run_dir
from rfla.errors import ConfigError, DataError
from rfla.fields import Influence, TracedField, TraceError, fit_gaussian, trace_fields
from rfla.files import write_atomically
from rfla.models import build_from_config, load_pretrained_backbone
from rfla.models.backbone_file import load_backbone_file
from rfla.models.detector import Detector
from rfla.models.detector_fields import (
    Pyramid,
    measures_fields,
    priors_of,
    pyramid_influence,
    sides_from,
    use_sides,
)
from rfla.models.priors import Points, Priors
from rfla.models.weights import load_weights, number_in, rebuild
from rfla.pictures.fields import FieldPanel, Scene, draw_fields
from rfla.tools.field_report import FieldReport, LevelFields
from rfla.tools.readable_pictures import readable_pictures

USUAL_SIZE = 512  # px, of random images
SIZES = np.arange(1, 1024, 0.25)  # px, sides of the boxes that levels are tried on
BOXES_DRAWN = 40  # an image with about so many is drawn

Array = np.ndarray[Any, np.dtype[Any]]


def run_fields(options: FieldOptions, given: Mapping[str, Any]) -> None:
    """Run `rfla rf`: print the table, and write fields.json and fields.png into a run's directory.

    Args:
        options: All keys.
        given: Those that were typed, dotted, with their values.

    Raises:
        RflaError: No such model or data, or settings that do not go together.
    """
    cfg = _settings(options, given)
    check_backbone(cfg)
    check_project(options.project)
    device = select_device(cfg.device)
    seed_everything(cfg.seed, False)
    index = None if cfg.data is None else load_index(load_data_spec(cfg.data), cfg.split)
    net, imgsz, weights = _network(cfg, index)
    if "imgsz" not in given:
        fallback = cfg.imgsz if index is not None else USUAL_SIZE
        cfg = cfg.model_copy(update={"imgsz": imgsz or fallback})
    net = net.to(device).eval()
    if index is not None:
        index = replace(index, value_range=range_of(net.config.normalize))
    images = _images(cfg, index, net, device, options.images)
    maps = pyramid_influence(net, images)

    where = "random images" if index is None else f"images of {cfg.data} {cfg.split}"
    title = f"receptive fields of {cfg.model}, {weights}: px at imgsz={cfg.imgsz}, "
    title += f"measured on {len(images)} {where}"
    report = replace(field_report(net, maps, index, cfg.imgsz), title=title)
    console = make_console()
    console.print(report.text(), soft_wrap=True)

    run_dir = create_run_dir(options.project, options.name, options.exist_ok)
    write_atomically(run_dir / "fields.json", json.dumps(report.as_dict(), indent=1))
    scene = None if index is None else _scene(net, index, cfg.imgsz)
    draw_fields(run_dir / "fields.png", title, _panels(net, report, maps), scene)
    console.print(f"wrote fields.json and fields.png into {run_dir}")


def field_report(
    net: Detector, maps: Sequence[Influence], index: Annotations | None, imgsz: int
) -> FieldReport:
    """Trace and fit the fields of a detector.

    With `assigner.fields=measured` its priors use the fits from here on.

    Args:
        net: The detector.
        maps: What each level looks at.
        index: Boxes to share out among the levels; None without any.
        imgsz: Long side of the network's input, px.
    """
    fits = [fit_gaussian(one) for one in maps]
    if measures_fields(net.config.assigner):
        use_sides(net, sides_from(fits, net))
    priors = _priors(net)
    backbone = {round(field.stride[0]): field for field in _traced(net.backbone, priors.strides)}
    pyramid = _traced(Pyramid(net), priors.strides)
    boxes = np.zeros((0, 4), np.float32) if index is None else _boxes(index, imgsz)
    of_boxes = levels_serving(net, boxes)
    of_sizes = levels_serving(net, np.stack((0 * SIZES, 0 * SIZES, SIZES, SIZES), axis=1))
    levels = []
    for level, stride in enumerate(priors.strides):
        served = SIZES[of_sizes == level]
        levels.append(
            LevelFields(
                name=f"P{stride.bit_length() - 1}",
                stride=stride,
                backbone=backbone.get(stride),
                pyramid=pyramid[level],
                measured=fits[level],
                used=priors.sides[level],
                effective=priors.sides[level] * priors.fraction,
                serves=_span(served) if len(served) else None,
                boxes=int((of_boxes == level).sum()),
            )
        )
    return FieldReport("", tuple(levels), len(boxes))


def levels_serving(net: nn.Module, boxes: Array) -> Array:
    """Return for each box (G, 4) the level (G,) that scores highest with the box on its prior.

    -1 where the assigner does not rank by fields.
    """
    priors = _priors(net)
    if not isinstance(priors.assigner, HierarchicalAssigner):
        return np.full(len(boxes), -1)
    half = torch.tensor(priors.sides, dtype=torch.float32)[:, None] * priors.fraction / 2
    fields = torch.cat((-half, -half, half, half), dim=1)  # (L, 4) round the origin
    sides = torch.from_numpy(boxes[:, 2:] - boxes[:, :2]).float() / 2
    centred = torch.cat((-sides, sides), dim=1)
    scores = receptive_field_distance(centred, fields, priors.assigner.distance)  # (G, L)
    best: Array = scores.argmax(dim=1).numpy()
    return best


def _settings(options: FieldOptions, given: Mapping[str, Any]) -> Config:
    """Return the settings of the model as a training would have them.

    Raises:
        ConfigError: An exported network, whose weights cannot be differentiated.
    """
    if is_exported(options.model):
        raise ConfigError(
            f"model={options.model}: is an exported network; give the weights it came from"
        )
    shared = ("model", "data", "imgsz", "pretrained", "seed", "max_pixels")
    keys = [key for key in given if key in shared or "." in key]
    defaults = {"split": options.split, "device": options.device}
    return load_config(defaults | {key: given[key] for key in keys})


def _network(cfg: Config, index: Annotations | None) -> tuple[Detector, int | None, str]:
    """Return the network, the size it was trained at if it was, and which weights it has."""
    if is_weights(cfg.model):
        path = str(cfg.model)
        state, metadata = load_weights(path)
        net = rebuild(model_part(cfg), len(metadata["names"]), state, path)
        imgsz = number_in(metadata, "imgsz")
        return net, None if imgsz is None else int(imgsz), "trained weights"
    net = build_from_config(model_part(cfg), 1 if index is None else len(index.names))
    if cfg.backbone.weights is not None:
        load_backbone_file(net, cfg.backbone.weights)
        return net, None, f"backbone of {cfg.backbone.weights}"
    found = cfg.pretrained and load_pretrained_backbone(net)
    return net, None, "ImageNet weights" if found else "random weights"


def _images(
    cfg: Config, index: Annotations | None, net: Detector, device: torch.device, count: int
) -> list[Tensor]:
    """Return images of the data set, or noise, as the network takes them."""
    if index is not None:
        return field_images(cfg, index, net.config.normalize, device, count)
    noise = torch.Generator().manual_seed(cfg.seed)
    return [torch.randn(3, cfg.imgsz, cfg.imgsz, generator=noise).to(device) for _ in range(count)]


def _priors(net: nn.Module) -> Priors:
    priors = priors_of(net)
    assert priors is not None  # every detector has points or anchors
    return priors


def _traced(network: nn.Module, strides: Sequence[int]) -> list[TracedField]:
    """Return the theoretical fields; unbounded, with the reason, where there is no trace."""
    try:
        return trace_fields(network)
    except TraceError as error:
        nowhere = (math.nan, math.nan)
        endless = (math.inf, math.inf)
        return [TracedField(endless, (side, side), nowhere, str(error)) for side in strides]


def _span(served: Array) -> tuple[float, float]:
    """Return the smallest and the largest of some sizes; infinite where the last one is there."""
    highest = float(served[-1])
    return float(served[0]), math.inf if highest == SIZES[-1] else highest


def _boxes(index: Annotations, imgsz: int) -> Array:
    """Return the boxes (G, 4) of a split that are learnt, in px of the input."""
    scales = []
    for height, width in index.image_hw.tolist():
        rows, columns = resized_shape(height, width, imgsz)
        scales.append((columns / width, rows / height) * 2)
    scale = np.array(scales).reshape(-1, 4)
    boxes: Array = index.boxes * np.repeat(scale, np.diff(index.box_start), axis=0)
    return boxes[is_object(index)]


def _scene(net: Detector, index: Annotations, imgsz: int) -> Scene:
    """Return the readable image whose number of boxes is nearest to `BOXES_DRAWN`.

    Raises:
        DataError: No image can be read.
    """
    boxes = _boxes(index, imgsz)
    rows = index.image_index[is_object(index)]
    sizes = np.sqrt(np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1))
    levels = levels_serving(net, boxes)
    for row, image in readable_pictures(index, imgsz, objects_per_image(index), BOXES_DRAWN):
        return Scene(image, boxes[rows == row], levels[rows == row], sizes, levels)
    raise DataError(f"{index.name}: no image could be read")


def _panels(net: Detector, report: FieldReport, maps: Sequence[Influence]) -> list[FieldPanel]:
    """Return the levels for the picture."""
    priors = _priors(net)
    in_middle = isinstance(priors, Points) and priors.offset == "half"
    return [
        FieldPanel(
            name=level.name,
            stride=level.stride,
            influence=found.shares.numpy(),
            theoretical=_corners(level.backbone),
            sigma=level.measured.sigma,
            centre=level.measured.offset,
            effective=level.effective,
            prior=level.stride / 2 if in_middle else 0.0,
            serves=level.serves_text,
        )
        for level, found in zip(report.levels, maps, strict=True)
    ]


def _corners(field: TracedField | None) -> tuple[float, float, float, float] | None:
    """Return x1, y1, x2, y2 of a field from the corner of its cell; None where it is unbounded."""
    if field is None or field.unbounded:
        return None
    (height, width), (row, column) = field.sides, field.offset
    return column - width / 2, row - height / 2, column + width / 2, row + height / 2
