"""Judge by a reference evaluator, pycocotools or faster-coco-eval, and say where it differs.

This is for those who doubt our figures: `rfla val engine=pycocotools`. The summaries of these
libraries are never used (see `result.summarize`). They know no ignored regions, so only protocols
that ignore nothing but crowds can be run, and they have no oLRP.
"""

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from rfla.errors import MetricError, did_you_mean
from rfla.metrics.accumulate import ABSENT, RECALLS, Curves
from rfla.metrics.arrays import REGION, Detections, FloatArray, GroundTruth
from rfla.metrics.detection_files import to_coco
from rfla.metrics.olrp import LrpPoint
from rfla.metrics.protocols import Protocol
from rfla.metrics.result import Metrics, summarize
from rfla.names import metric_label

MODULES = {"pycocotools": "pycocotools", "faster-coco-eval": "faster_coco_eval"}
"""Name of each engine, and the module that must be installed for it."""


@dataclass(frozen=True)
class ReferenceCheck:
    """Our figures beside those of a reference engine.

    Attributes:
        engine: its name.
        figures: (name, ours, theirs) of each figure that both have.
        largest: largest difference of any precision or recall, at any IoU, size, class, recall and
            detection limit.
        place: where that is; empty where nothing differs.
    """

    engine: str
    figures: tuple[tuple[str, float, float], ...]
    largest: float
    place: str

    def table(self) -> Group:
        """Return both columns, and the largest difference below."""
        table = Table(title=f"rfla and {self.engine}", title_justify="left", box=None)
        table.padding = (0, 2, 0, 0)
        for column in ("metric", "rfla", self.engine, "difference"):
            table.add_column(column, justify="left" if column == "metric" else "right")
        for name, ours, theirs in self.figures:
            shown = ["-" if value == ABSENT else f"{value:.6f}" for value in (ours, theirs)]
            table.add_row(
                metric_label(name), *shown, f"{theirs - ours:.1e}" if theirs != ours else "0"
            )
        at = f", at {self.place}" if self.place else ""
        largest = f"largest difference of any precision or recall: {self.largest:.1e}{at}"
        return Group(table, Text(largest), Text("results.json holds the metrics of rfla"))


def require_engine(engine: str, protocol: Protocol) -> None:
    """Check that a reference engine is there and can run a protocol.

    Raises:
        MetricError: unknown, not installed, or the protocol ignores more than crowds.
    """
    if engine not in MODULES:
        known = ", ".join(MODULES)
        raise MetricError(f"unknown engine '{engine}': {known}{did_you_mean(engine, MODULES)}")
    if importlib.util.find_spec(MODULES[engine]) is None:
        raise MetricError(f"engine={engine}: not installed; pip install {engine}")
    if protocol.ignoring != "crowd":
        raise MetricError(
            f"engine={engine}: it has no ignored regions, so it cannot judge by the protocol "
            f"{protocol.name}; protocol=aitod or protocol=coco can be checked"
        )


def check_reference(
    metrics: Metrics, gt: GroundTruth, detections: Detections, engine: str
) -> ReferenceCheck:
    """Judge detections once more with a reference engine, and compare.

    Args:
        metrics: of `evaluate_boxes` or `study`.
        gt: the true boxes.
        detections: those that `metrics` judges.
        engine: "pycocotools" or "faster-coco-eval".

    Raises:
        MetricError: as in `require_engine`.
    """
    protocol = metrics.protocol
    curves = reference_curves(gt, detections, protocol, engine)
    theirs = summarize(curves, replace(protocol, lrp=False), gt).figures
    largest, place = _largest_difference(metrics.curves, curves, protocol, gt.names)
    figures = tuple((name, metrics.figures[name], value) for name, value in theirs.items())
    return ReferenceCheck(engine, figures, largest, place)


def _largest_difference(
    ours: Curves, theirs: Curves, protocol: Protocol, names: Sequence[str]
) -> tuple[float, str]:
    """Return the largest difference of the curves, and where it is."""
    differences = [np.abs(theirs.precision - ours.precision), np.abs(theirs.recall - ours.recall)]
    largest = [float(difference.max(initial=0.0)) for difference in differences]
    if max(largest) == 0:
        return 0.0, ""
    if largest[0] >= largest[1]:
        t, r, k, a = np.unravel_index(int(differences[0].argmax()), differences[0].shape)
        what = f"precision at recall {RECALLS[r]:.2f}"
    else:
        t, k, a, m = np.unravel_index(int(differences[1].argmax()), differences[1].shape)
        what = f"recall of {protocol.max_dets[int(m)]} detections"
    size, iou = protocol.size_names[int(a)], protocol.thresholds[int(t)]
    return max(largest), f"{what}, IoU {iou:g}, size {size}, class {names[int(k)]}"


def reference_curves(
    gt: GroundTruth,
    detections: Detections,
    protocol: Protocol,
    engine: str = "pycocotools",
    use_categories: bool = True,
) -> Curves:
    """Return the precision and recall of a reference engine, classes in label order, no oLRP.

    Raises:
        MetricError: as in `require_engine`.
    """
    require_engine(engine, protocol)
    return run_reference(
        gt_to_coco(gt), to_coco(detections, gt), gt, protocol, engine, use_categories
    )


def run_reference(
    truths: dict[str, Any],
    results: list[dict[str, Any]],
    gt: GroundTruth,
    protocol: Protocol,
    engine: str = "pycocotools",
    use_categories: bool = True,
) -> Curves:
    """Run a reference engine on what `gt_to_coco` and `to_coco` make."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = _evaluation(truths, results, engine)
        evaluation.params.iouThrs = np.array(protocol.thresholds)
        evaluation.params.areaRng = [list(bounds) for bounds in protocol.area_ranges]
        evaluation.params.areaRngLbl = list(protocol.size_names)
        evaluation.params.maxDets = list(protocol.max_dets)
        evaluation.params.useCats = int(use_categories)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"], np.float64)
    recall = np.asarray(evaluation.eval["recall"], np.float64)
    if use_categories:  # the engines sort by category id
        precision, recall = precision[:, :, gt.class_rank], recall[:, gt.class_rank]
    none = np.full((*recall.shape[1:], len(LrpPoint._fields)), ABSENT)
    return Curves(precision[..., -1], recall, none, _count_boxes(gt, protocol, use_categories))


def _count_boxes(gt: GroundTruth, protocol: Protocol, use_categories: bool) -> FloatArray:
    """Return (K, A) the number of true boxes that count."""
    assert gt.area is not None and gt.crowd is not None
    labels = gt.labels if use_categories else np.zeros_like(gt.labels)
    classes = len(gt.names) if use_categories else 1
    counts = [
        np.bincount(
            labels[(gt.area >= low) & (gt.area <= high) & ~gt.crowd & (gt.labels != REGION)],
            minlength=classes,
        )
        for low, high in protocol.area_ranges
    ]
    return np.stack(counts, axis=1).astype(np.float64)


def gt_to_coco(gt: GroundTruth) -> dict[str, Any]:
    """Return the ground truth as a COCO dict, regions left out."""
    assert gt.sides is not None and gt.area is not None and gt.crowd is not None
    boxes = np.concatenate([gt.boxes[:, :2], gt.sides], axis=1).tolist()
    annotations = [
        {
            "id": row + 1,  # pycocotools takes a match with id 0 for no match
            "image_id": gt.image_ids[gt.image_index[row]],
            "category_id": gt.category_ids[gt.labels[row]],
            "bbox": boxes[row],
            "area": float(gt.area[row]),
            "iscrowd": int(gt.crowd[row]),
        }
        for row in np.flatnonzero(gt.labels != REGION).tolist()
    ]
    categories = [
        {"id": c, "name": name} for c, name in zip(gt.category_ids, gt.names, strict=True)
    ]
    return {
        "images": [{"id": image} for image in gt.image_ids],
        "annotations": annotations,
        "categories": categories,
    }


def _evaluation(truths: dict[str, Any], results: list[dict[str, Any]], engine: str) -> Any:
    if engine == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        loaded = COCO()
        loaded.dataset = truths
        loaded.createIndex()
        found = loaded.loadRes(results) if results else _nothing(COCO, truths)
        return COCOeval(loaded, found, "bbox")
    from faster_coco_eval import COCO, COCOeval_faster

    loaded = COCO(truths)
    found = loaded.loadRes(results) if results else _nothing(COCO, truths)
    return COCOeval_faster(loaded, found, "bbox", print_function=lambda *_: None)


def _nothing(library_class: Any, truths: dict[str, Any]) -> Any:
    """Return a result set without detections, which `loadRes` cannot make."""
    empty = library_class()
    empty.dataset = truths | {"annotations": []}
    empty.createIndex()
    return empty
