"""All detectors by name, and how one is built from a name, a YAML or a configuration."""

import logging
from collections.abc import Mapping
from typing import Any

import torch

from rfla.cfg import model_config
from rfla.cfg.model_schema import ModelConfig
from rfla.errors import ConfigError
from rfla.models.autoassign import AutoAssign
from rfla.models.cascade_rcnn import CascadeRCNN
from rfla.models.detector import Detector
from rfla.models.detectors import DetectoRS
from rfla.models.faster_rcnn import FasterRCNN
from rfla.models.fcos import FCOS
from rfla.models.retinanet import RetinaNet
from rfla.models.rfd import RFD

log = logging.getLogger("rfla")

DETECTORS: dict[str, type[Detector]] = {
    "fcos": FCOS,
    "rfd": RFD,
    "autoassign": AutoAssign,
    "retinanet": RetinaNet,
    "faster_rcnn": FasterRCNN,
    "cascade_rcnn": CascadeRCNN,
    "detectors": DetectoRS,
}
MAX_CLASSES = 2_000  # a score for each at every point: 2,000 take 0.4 GB at 800 px on P2
MAX_PARAMETERS = 500_000_000


def build_detector(
    name: str,
    num_classes: int = 8,
    assigner: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Detector:
    """Build a detector with random weights.

    Args:
        name: zoo name (`fcos_p2`, ...) or path of a model YAML.
        num_classes: without background.
        assigner: `rfla`, `baseline` or `atss`; left out, what the YAML says (`rfla` for the zoo).
        settings: dotted keys of the model sections, e.g. `{"assigner.distance": "wd", "backbone":
            "resnet18"}`.

    Raises:
        ConfigError: no such model, or a setting is wrong.
    """
    return build_from_config(model_config(name, assigner, settings), num_classes)


def build_from_config(config: ModelConfig, num_classes: int) -> Detector:
    """Build a detector with random weights; `net.config` remembers what it was built from.

    Raises:
        ConfigError: absurdly many classes or parameters, or settings that the detector cannot have.
    """
    sketch(config, num_classes)
    net = DETECTORS[config.detector].from_config(config, num_classes)
    net.config = config
    return net


def sketch(config: ModelConfig, num_classes: int) -> Detector:
    """Build a detector on the `meta` device: names and shapes alone, without memory.

    Raises:
        ConfigError: as `build_from_config`.
    """
    if not 1 <= num_classes <= MAX_CLASSES:
        raise ConfigError(f"{num_classes} classes: a model has 1 to {MAX_CLASSES}")
    with torch.device("meta"):
        net = DETECTORS[config.detector].from_config(config, num_classes)
    size = sum(parameter.numel() for parameter in net.parameters())
    if size > MAX_PARAMETERS:
        raise ConfigError(
            f"a {config.detector} of {size / 1e6:.0f} M parameters: "
            f"at most {MAX_PARAMETERS // 10**6} M"
        )
    return net


def load_pretrained_backbone(net: Detector) -> bool:
    """Put torchvision's ImageNet weights into the backbone of a new detector.

    Where they can neither be read from the torch hub cache nor downloaded, one line says so and the
    backbone is thawed: with random weights nothing may stay frozen and batch norm has to learn.

    Returns:
        Whether the weights were found.
    """
    normalize = net.config.normalize
    for backbone in net.backbones:
        if backbone.load_imagenet(normalize.std, normalize.channels):
            continue
        log.warning(
            "no ImageNet weights for %s here (backbone.weights=FILE takes a file): random weights, "
            "nothing frozen, batch norm learns",
            backbone.name,
        )
        for each in net.backbones:
            each.thaw()
        return False
    return True
