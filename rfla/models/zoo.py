"""All detectors by name, and how one is built from a name, a YAML or a configuration."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch

from rfla.cfg import model_config
from rfla.cfg.model_schema import ModelConfig
from rfla.errors import ConfigError
from rfla.models.backbones.pretrained import fold_input_scale
from rfla.models.backbones.sac import StandardizedConv2d
from rfla.models.build_anchor import build_detectors, build_retinanet, build_two_stage
from rfla.models.build_dense import build_autoassign, build_fcos
from rfla.models.detector import Detector

log = logging.getLogger("rfla")

DETECTORS: dict[str, Callable[[ModelConfig, int], Detector]] = {
    "fcos": build_fcos,
    "autoassign": build_autoassign,
    "retinanet": build_retinanet,
    "faster_rcnn": build_two_stage,
    "cascade_rcnn": build_two_stage,
    "detectors": build_detectors,
}
MAX_CLASSES = 10_000
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
        ConfigError: absurdly many classes or parameters.
    """
    if not 1 <= num_classes <= MAX_CLASSES:
        raise ConfigError(f"{num_classes} classes: a model has 1 to {MAX_CLASSES}")
    build = DETECTORS[config.detector]
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in build(config, num_classes).parameters())
    if size > MAX_PARAMETERS:
        raise ConfigError(
            f"a {config.detector} of {size / 1e6:.0f} M parameters: at most {MAX_PARAMETERS // 10**6} M"
        )
    net = build(config, num_classes)
    net.config = config
    return net


def load_pretrained_backbone(net: Detector) -> bool:
    """Put torchvision's ImageNet weights into the backbone of a new detector.

    Where they can neither be read from the torch hub cache nor downloaded, one line says so and the
    backbone is thawed: with random weights nothing may stay frozen and batch norm has to learn.

    Returns:
        Whether the weights were found.
    """
    for backbone in net.backbones:
        if not backbone.load_imagenet():
            log.warning(
                "no ImageNet weights for %s here: random weights, nothing frozen, batch norm learns",
                backbone.name,
            )
            for each in net.backbones:
                each.thaw()
            return False
        fold_input_scale(backbone.conv1, net.config.normalize.std, net.config.normalize.channels)
        if isinstance(backbone.conv1, StandardizedConv2d):
            backbone.conv1.keep_weight()
    return True
