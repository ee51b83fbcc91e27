"""What the assigner of a model does with the boxes of a data set, before any training.

Shapes: G boxes of one image, P priors. Boxes are xyxy in px of the network's input.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rfla.assign import HierarchicalAssigner
from rfla.assign.explain import AssignmentReport, report
from rfla.cfg import Config, model_part
from rfla.data import Annotations, load_data_spec, load_index
from rfla.data.common_range import with_common_range
from rfla.data.object_sizes import LARGEST_ADVISED
from rfla.data.pixel_range import range_of
from rfla.data.resize import resized_shape
from rfla.engine.field_measurement import field_images
from rfla.errors import ConfigError, DataError
from rfla.models.detector_fields import measured_sides, measures_fields, priors_of, use_sides
from rfla.models.priors import Priors
from rfla.models.zoo import build_from_config
from rfla.pictures.assignment import draw_assignment
from rfla.pictures.boxes import write_picture
from rfla.sizes import padded_side
from rfla.tools.readable_pictures import readable_pictures

MAX_IMAGES = 500  # spread over the split; some milliseconds for each
ADVISED_IMAGES = 50  # at each of the sizes that are tried for an advice
WORTH_IT = 0.5  # an advised size leaves at most half of the boxes without a positive
BOXES_DRAWN = 30  # an image with about so many is drawn

_Input = tuple[
    Tensor, Tensor, tuple[int, int]
]  # boxes (G, 4), ignore regions (I, 4), (height, width)


def assignment_report(
    cfg: Config, picture: Path | None = None, images: int = MAX_IMAGES
) -> AssignmentReport:
    """Assign the boxes of a split as a training of `cfg.model` at `cfg.imgsz` would.

    Args:
        cfg: The settings.
        picture: Where to draw a piece of one image with its positives and their fields; None draws
            nothing.
        images: How many are looked at, spread over the split.

    Raises:
        DataError: no such data or split, or no box in it.
        ConfigError: the model has no assigner.
    """
    spec = load_data_spec(str(cfg.data))
    index = load_index(spec, cfg.split, for_training=True)
    if len(index) > images:
        index = load_index(spec, cfg.split, for_training=True, fraction=images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        net = build_from_config(model_part(cfg), max(1, len(index.names)))
    index = with_common_range(replace(index, value_range=range_of(cfg.normalize)))
    if measures_fields(cfg.assigner):
        pictures = field_images(cfg, index, cfg.normalize, torch.device("cpu"))
        use_sides(net, measured_sides(net, pictures))
    inputs = list(_inputs(index, cfg.imgsz))
    reports = [_explain(net, boxes, ignore, size) for boxes, ignore, size in inputs if len(boxes)]
    if not reports:
        raise DataError(f"{index.name}: no boxes in split {cfg.split}")
    if picture is not None:
        _draw_one(net, index, inputs, cfg.imgsz, picture)
    return AssignmentReport.merge(reports)


def advice(cfg: Config, report: AssignmentReport) -> str:
    """Say what to change so that boxes without a positive get one: the line without their number.

    Larger inputs are tried on some of the images, up to twice the size of the images themselves.

    Args:
        cfg: The settings that were tried.
        report: What came out.
    """
    boxes, without = len(report.positives), len(report.without_positive)
    what = f"of {boxes:,} boxes without a positive from model={cfg.model} at imgsz={cfg.imgsz}: "
    tiles = f"rfla convert format=... tile={cfg.imgsz}"
    for imgsz in _larger_sizes(cfg):
        tried = assignment_report(cfg.model_copy(update={"imgsz": imgsz}), images=ADVISED_IMAGES)
        share = len(tried.without_positive) / len(tried.positives)
        if share <= WORTH_IT * without / max(boxes, 1):
            return f"{what}imgsz={imgsz} leaves {share:.1%} without, and so do tiles ({tiles})"
    return f"{what}they stand too close; a model with a finer level (fcos_p2) may part them"


def _larger_sizes(cfg: Config) -> list[int]:
    """Inputs to try: the size of the largest images, one and a half and two times as large."""
    index = load_index(load_data_spec(str(cfg.data)), cfg.split, need_images=False)
    native = int(index.image_hw.max())
    sizes = (padded_side(int(native * factor)) for factor in (1, 1.5, 2))
    return [size for size in sizes if cfg.imgsz < size <= LARGEST_ADVISED]


def _inputs(index: Annotations, imgsz: int) -> Iterator[_Input]:
    """Yield boxes (G, 4), ignore regions (I, 4) and (height, width) of each network input."""
    for row in range(len(index)):
        here = index.rows_of(row)
        height, width = (int(side) for side in index.image_hw[row])
        size = resized_shape(height, width, imgsz)
        scale = torch.tensor([size[1] / width, size[0] / height] * 2)
        boxes = torch.from_numpy(index.boxes[here]) * scale
        ignored = torch.from_numpy(index.ignore[here] | index.crowd[here])
        yield boxes[~ignored], boxes[ignored], size


def _draw_one(
    net: nn.Module, index: Annotations, inputs: Sequence[_Input], imgsz: int, picture: Path
) -> None:
    """Draw the readable image whose number of boxes is nearest to `BOXES_DRAWN`."""
    priors = _priors_of(net)
    counts = np.array([len(boxes) for boxes, _, _ in inputs], np.int64)
    for row, image in readable_pictures(index, imgsz, counts, BOXES_DRAWN):
        boxes, ignore, size = inputs[row]
        if not len(boxes) or image.shape[:2] != size:
            continue
        levels = _empty_levels(priors.strides, size)
        matched = priors.assign(levels, [{"boxes": boxes, "ignore": ignore}], [size])[0]
        grid, positive = priors.grid(levels), matched >= 0
        fields, levels_of = grid.boxes[positive].numpy(), grid.level_index[positive].numpy()
        write_picture(
            picture, draw_assignment(image, boxes.numpy(), fields, levels_of, grid.strides)
        )
        return


def _priors_of(net: nn.Module) -> Priors:
    priors = priors_of(net)
    if priors is None or priors.assigner is None:
        raise ConfigError(
            "this model has no assigner to report on "
            "(AutoAssign's own rule weighs all points in a box)"
        )
    return priors


def _explain(
    net: nn.Module, boxes: Tensor, ignore: Tensor, size: tuple[int, int]
) -> AssignmentReport:
    priors = _priors_of(net)
    levels = _empty_levels(priors.strides, size)
    grid = priors.grid(levels)
    if isinstance(priors.assigner, HierarchicalAssigner):
        sizes, border = priors.within([size])
        return priors.assigner.explain(grid, boxes, ignore, sizes[0] if sizes else None, border)
    return report(
        grid, boxes, priors.assign(levels, [{"boxes": boxes, "ignore": ignore}], [size])[0], []
    )


def _empty_levels(strides: Sequence[int], size: tuple[int, int]) -> list[Tensor]:
    """Feature maps of the right sizes that take no memory; only their shapes are looked at."""
    height, width = (padded_side(side) for side in size)
    return [
        torch.zeros(()).expand(1, 1, -(-height // stride), -(-width // stride))
        for stride in strides
    ]
