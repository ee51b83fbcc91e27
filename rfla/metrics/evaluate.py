"""The one call of this package: ground truth and detections in, figures out."""

from collections.abc import Mapping, Sequence

from rfla.metrics.accumulate import accumulate
from rfla.metrics.coco_io import GroundTruthSource, read_ground_truth
from rfla.metrics.detection_files import DetectionSource, read_detections, warn
from rfla.metrics.input_checks import find_doubts
from rfla.metrics.matches import match_detections
from rfla.metrics.protocols import Protocol, find_protocol
from rfla.metrics.result import Metrics, summarize


def evaluate_boxes(
    gt: GroundTruthSource,
    detections: DetectionSource,
    protocol: str | Protocol = "aitod",
    sizes: Mapping[str, Sequence[float]] | None = None,
    *,
    max_dets: Sequence[int] | None = None,
    use_categories: bool = True,
    lrp: bool | None = None,
) -> Metrics:
    """Evaluate detections.

    Args:
        gt: `GroundTruth`, a COCO dict, or a path to a COCO JSON file.
        detections: `Detections`, a COCO result list, or a path to one.
        protocol: "aitod", "coco", "visdrone", "soda", "tinyperson", or a `Protocol`.
        sizes: own size ranges instead of the protocol's, {name: (low, high)} in px of sqrt(area),
            ends included.
        max_dets: own limits of detections per image and class instead of the protocol's.
        use_categories: False: all classes are one.
        lrp: whether oLRP is computed; None: as the protocol says (yes).

    Warns about detections of a file or list that can hardly be meant, such as boxes given as shares
    of the image or as corners (`rfla.metrics.input_checks`).

    Returns:
        `ap`, `ap50`, `ap_vt`, ... as attributes, and a row for each class; -1 is undefined (no box
        of that class or size).

    Raises:
        MetricError: input that cannot be evaluated: NaN scores, unknown images or classes, a file
            that is not COCO.
    """
    rules = find_protocol(protocol, sizes, max_dets, lrp)
    truths = read_ground_truth(gt)
    found = read_detections(detections, truths)
    matches = match_detections(truths, found, rules, use_categories)
    for doubt in [] if found is detections else find_doubts(truths, found, matches):
        warn(doubt)
    return summarize(accumulate(matches), rules, truths, use_categories)
