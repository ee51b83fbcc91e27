"""Detectors: pixels to raw predictions, losses and detections."""

from rfla.models.mmdet import load_mmdet
from rfla.models.zoo import build_detector, build_from_config, load_pretrained_backbone

__all__ = ["build_detector", "build_from_config", "load_mmdet", "load_pretrained_backbone"]
