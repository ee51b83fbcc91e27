"""How good detections are: COCO figures at any size ranges, oLRP, analyses and a report."""

from rfla.metrics.analysis import Study, study
from rfla.metrics.arrays import REGION, Detections, GroundTruth
from rfla.metrics.coco_io import ground_truth, read_ground_truth
from rfla.metrics.detection_files import read_detections
from rfla.metrics.evaluate import evaluate_boxes
from rfla.metrics.html_report import write_report
from rfla.metrics.protocols import PROTOCOLS, Protocol, find_protocol
from rfla.metrics.result import Metrics

__all__ = [
    "PROTOCOLS",
    "REGION",
    "Detections",
    "GroundTruth",
    "Metrics",
    "Protocol",
    "Study",
    "evaluate_boxes",
    "find_protocol",
    "ground_truth",
    "read_detections",
    "read_ground_truth",
    "study",
    "write_report",
]
