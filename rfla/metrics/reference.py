"""The reference engines, pycocotools and faster-coco-eval, run under our protocols.

They are what our engine is tested and timed against; nothing else in this package calls them. The
summaries of these libraries are never used (see `result.summarize`). Only protocols that ignore
crowds alone can be run here.
"""

import contextlib
import io
from typing import Any, Literal

import numpy as np

from rfla.errors import MetricError
from rfla.metrics.accumulate import ABSENT, Curves
from rfla.metrics.arrays import REGION, Detections, FloatArray, GroundTruth
from rfla.metrics.detection_files import to_coco
from rfla.metrics.olrp import LrpPoint
from rfla.metrics.protocols import Protocol

Engine = Literal["pycocotools", "faster-coco-eval"]


def reference_curves(
    gt: GroundTruth,
    detections: Detections,
    protocol: Protocol,
    engine: Engine = "pycocotools",
    use_categories: bool = True,
) -> Curves:
    """Return precision and recall as a reference engine computes them, classes in label order, without oLRP."""
    if protocol.ignoring != "crowd":
        raise MetricError(
            f"{engine} has no ignored regions; protocol {protocol.name} runs on our engine only"
        )
    return run_reference(
        gt_to_coco(gt), to_coco(detections, gt), gt, protocol, engine, use_categories
    )


def run_reference(
    truths: dict[str, Any],
    results: list[dict[str, Any]],
    gt: GroundTruth,
    protocol: Protocol,
    engine: Engine = "pycocotools",
    use_categories: bool = True,
) -> Curves:
    """Load, match and accumulate with a reference engine, from what `gt_to_coco` and `to_coco` make."""
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


def _evaluation(truths: dict[str, Any], results: list[dict[str, Any]], engine: Engine) -> Any:
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
