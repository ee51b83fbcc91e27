"""All backbones by name, and how one is built from the configuration."""

from rfla.cfg.model_schema import BackboneConfig
from rfla.models.backbones.backbone import Backbone
from rfla.models.backbones.resnet import ResNet

BACKBONES: dict[str, type[Backbone]] = {
    "resnet18": ResNet,
    "resnet34": ResNet,
    "resnet50": ResNet,
    "resnet101": ResNet,
}


def build_backbone(section: BackboneConfig) -> Backbone:
    """Build the backbone of this name with random weights."""
    return BACKBONES[section.name].from_config(section)
