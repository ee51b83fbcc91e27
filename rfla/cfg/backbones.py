"""Which pixels the weights of a backbone want, for a backbone that the model YAML did not choose.

Only timm itself knows its networks: `rfla.models.backbones.timm_networks`.
"""

from rfla.cfg.backbone_names import BACKBONE_FAMILIES, TIMM
from rfla.cfg.setting_layers import Layer, Setting

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of red, green and blue, of pixels from 0 to 255."""

IMAGENET: Statistics = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
HALF: Statistics = ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
OTHER_THAN_IMAGENET = {"efficientnet_v2_l": HALF}
RESNETS = ("ResNet", "ResNeXt", "Wide ResNet")


def is_resnet(name: object) -> bool:
    """Whether it is of the families that the zoo's models and their normalisation are made for."""
    return any(name in BACKBONE_FAMILIES[family] for family in RESNETS)


def pixel_statistics(name: str) -> Statistics:
    """What the weights of a backbone want of their pixels.

    Raises:
        ConfigError: no such network in timm, or timm is not installed.
    """
    if not name.startswith(TIMM):
        return OTHER_THAN_IMAGENET.get(name, IMAGENET)
    # here, because rfla.models is built on this package
    from rfla.models.backbones.timm_networks import timm_statistics

    return timm_statistics(name)


def normalize_layer(model: Layer, later: Layer) -> Layer:
    """The normalisation that follows from a backbone; empty where the model's own fits.

    Args:
        model: settings of the model YAML or weights file.
        later: settings above them.

    Raises:
        ConfigError: as `pixel_statistics`.
    """
    own, name = (layer.get("backbone.name", Setting(None)).value for layer in (model, later))
    if name is None or name == own:
        name = None if any(key.startswith("normalize.") for key in model) else own
    elif is_resnet(name) and (own is None or is_resnet(own)):
        return {}
    if not isinstance(name, str):
        return {}
    mean, std = pixel_statistics(name)
    where = f"backbone.name={name}"
    return {
        "normalize.mean": Setting(mean, where),
        "normalize.std": Setting(std, where),
        "normalize.channels": Setting("rgb", where),
    }
