"""Which detections a model keeps, from its configuration."""

from rfla.cfg.model_schema import TestConfig
from rfla.ops.nms import DetectionLimits


def build_limits(section: TestConfig) -> DetectionLimits:
    """The limits of the section `test`."""
    return DetectionLimits(**section.model_dump())
