"""Which detections a model keeps, from its configuration."""

from rfla.cfg.model_schema import TestConfig
from rfla.ops.nms import DetectionLimits


def build_limits(section: TestConfig) -> DetectionLimits:
    """The limits of the section `test`."""
    return DetectionLimits(
        conf=section.conf,
        score_thr=section.score_thr,
        nms_iou=section.nms_iou,
        max_det=section.max_det,
        nms_pre=section.nms_pre,
    )
