"""The ignore rules of TinyPerson and VisDrone against pycocotools with those rules written in."""

import contextlib
import dataclasses
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rfla.metrics import Detections, GroundTruth, find_protocol
from rfla.metrics.accumulate import accumulate
from rfla.metrics.detection_files import to_coco
from rfla.metrics.matches import match_detections
from rfla.metrics.reference import gt_to_coco, reference_curves


class TinyEval(COCOeval):
    """TinyPerson's evaluator: `ignore` counts, and what lies in an ignored box is ignored (IoD)."""

    def _prepare(self):
        super()._prepare()
        for group in self._gts.values():
            for gt in group:
                gt["ignore"] = gt["iscrowd"] or gt["flagged"]

    def evaluateImg(self, imgId, catId, aRng, maxDet):
        result = super().evaluateImg(imgId, catId, aRng, maxDet)
        if result is None:
            return None
        ignored = [gt["bbox"] for gt in self._gts[imgId, catId] if gt["_ignore"]]
        boxes = {dt["id"]: dt["bbox"] for dt in self._dts[imgId, catId]}
        for place, dt in enumerate(result["dtIds"]):
            deepest = max((inside(boxes[dt], gt) for gt in ignored), default=0)
            for t, threshold in enumerate(self.params.iouThrs):
                if not result["dtMatches"][t, place] and deepest >= threshold:
                    result["dtMatches"][t, place] = 1
                    result["dtIgnore"][t, place] = True
        return result


def inside(det, gt):
    width = min(det[0] + det[2], gt[0] + gt[2]) - max(det[0], gt[0])
    height = min(det[1] + det[3], gt[1] + gt[3]) - max(det[1], gt[1])
    return width * height / (det[2] * det[3]) if width > 0 and height > 0 else 0


def scene(seed, images=3, boxes=25, dets=60):
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 50, (boxes, 2))
    truth = np.concatenate([corner, corner + rng.integers(1, 30, (boxes, 2))], axis=1).astype(
        np.float64
    )
    kind = rng.choice(4, boxes, p=[0.6, 0.2, 0.2, 0.0])
    labels = rng.integers(0, 2, boxes)
    image = rng.integers(0, images, boxes)
    gt = GroundTruth(
        tuple(range(1, images + 1)),
        image,
        truth,
        labels,
        ignore=kind == 1,
        crowd=kind == 2,
        names=("a", "b"),
    )
    moved = truth[rng.integers(0, boxes, dets)] + rng.integers(-3, 4, (dets, 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    found = Detections(
        rng.integers(0, images, dets),
        moved.astype(np.float64),
        rng.integers(1, 9, dets) / 9,
        rng.integers(0, 2, dets),
    )
    return gt, found


def run_tiny(gt, found, protocol):
    truths = gt_to_coco(gt)
    for annotation in truths["annotations"]:
        annotation["flagged"] = int(gt.ignore[annotation["id"] - 1])
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO()
        loaded.dataset = truths
        loaded.createIndex()
        evaluation = TinyEval(loaded, loaded.loadRes(to_coco(found, gt)), "bbox")
        evaluation.params.iouThrs = np.array(protocol.thresholds)
        evaluation.params.areaRng = [list(bounds) for bounds in protocol.area_ranges]
        evaluation.params.areaRngLbl = list(protocol.size_names)
        evaluation.params.maxDets = list(protocol.max_dets)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., -1], evaluation.eval["recall"]


@pytest.mark.parametrize("seed", range(6))
def test_tinyperson_as_its_evaluator(seed):
    gt, found = scene(seed)
    protocol = find_protocol("tinyperson", max_dets=(7,) if seed % 2 else None)
    curves = accumulate(match_detections(gt, found, protocol))
    precision, recall = run_tiny(gt, found, protocol)
    np.testing.assert_allclose(curves.precision, precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(curves.recall, recall, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_visdrone_ignored_boxes_are_crowds(seed):
    gt, found = scene(seed)
    protocol = find_protocol("visdrone", max_dets=(2, 100))
    curves = accumulate(match_detections(gt, found, protocol))
    crowds = dataclasses.replace(gt, crowd=gt.crowd | gt.ignore, ignore=None)
    reference = reference_curves(crowds, found, dataclasses.replace(protocol, ignoring="crowd"))
    np.testing.assert_allclose(curves.precision, reference.precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(curves.recall, reference.recall, rtol=0, atol=1e-12)
