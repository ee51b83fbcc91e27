"""All backbones by name, and how one is built from the configuration."""

from rfla.cfg.backbone_names import BACKBONE_FAMILIES, TIMM
from rfla.cfg.backbones import is_resnet
from rfla.cfg.model_schema import BackboneConfig
from rfla.models.backbones.backbone import Backbone
from rfla.models.backbones.network import NetworkBackbone
from rfla.models.backbones.resnet import ResNet

BACKBONES: dict[str, type[Backbone]] = {
    name: ResNet if is_resnet(name) else NetworkBackbone
    for family in BACKBONE_FAMILIES.values()
    for name in family
}


def build_backbone(section: BackboneConfig) -> Backbone:
    """Build the backbone of this name with random weights.

    Raises:
        ConfigError: timm has no such network or is not installed, or it gives no pyramid.
    """
    if section.name.startswith(TIMM):
        return NetworkBackbone.from_config(section)
    return BACKBONES[section.name].from_config(section)
