"""The receptive fields of a detector: which its priors have, and what its pyramid really sees.

Shapes: L levels, (H, W) px of an image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from rfla.cfg.model_schema import AssignerConfig, ModelConfig
from rfla.fields import Influence, MeasuredField, fit_gaussian, measure_influence
from rfla.models.detector import Detector
from rfla.models.priors import Priors
from rfla.sizes import padded_side


class Pyramid(nn.Module):
    """The pyramid of a detector as a network of its own: images (B, 3, H, W) to L maps.

    Args:
        net: The detector; its weights are shared.
    """

    def __init__(self, net: Detector) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of all levels, finest first."""
        return self.net.pyramid(images)


def priors_of(net: nn.Module) -> Priors | None:
    """Return the points or anchors of a detector; None for another network."""
    return next((part for part in net.modules() if isinstance(part, Priors)), None)


def sides_of(net: nn.Module) -> list[float]:
    """Return the sides (L, px) of a detector's priors before `fraction`; [] of another network."""
    priors = priors_of(net)
    return [] if priors is None else list(priors.sides)


def use_sides(net: nn.Module, sides: Sequence[float]) -> None:
    """Give the priors of a detector other sides (L, px).

    Raises:
        ValueError: not one for each level, or the network has no priors.
    """
    priors = priors_of(net)
    if priors is None:
        raise ValueError("receptive fields for a network without points or anchors")
    priors.use_sides(sides)


def measures_fields(section: AssignerConfig) -> bool:
    """Tell whether priors have fields that have to be measured.

    With another assigner anchors are no receptive fields.
    """
    return section.name == "rfla" and section.fields == "measured"


def pyramid_influence(net: Detector, images: Sequence[Tensor]) -> list[Influence]:
    """Measure what each level of a detector's pyramid looks at.

    Args:
        net: The detector.
        images: (3, H, W) normalised, on its device; padded as for training.
    """
    padded = []
    for image in images:
        height, width = image.shape[-2:]
        room = (0, padded_side(width) - width, 0, padded_side(height) - height)
        padded.append(functional.pad(image, room))
    device = padded[0].device.type if padded else "cpu"
    with torch.autocast(device, enabled=False):
        return measure_influence(Pyramid(net), padded)


def sides_from(fits: Sequence[MeasuredField], net: nn.Module) -> list[float]:
    """Return the full side (L, px) of each level by its fit, see `MeasuredField.side`.

    A level that looks at nothing yet keeps the side that it has in the detector.
    """
    found = [fit.side for fit in fits]
    return [new if new > 0 else old for new, old in zip(found, sides_of(net), strict=True)]


def measured_sides(net: Detector, images: Sequence[Tensor]) -> list[float]:
    """Measure the full side (L, px) of each level; images as for `pyramid_influence`."""
    return sides_from([fit_gaussian(one) for one in pyramid_influence(net, images)], net)


def with_sides(config: ModelConfig, net: nn.Module) -> ModelConfig:
    """Return the settings that rebuild a network with the fields it has now.

    Measured fields become numbers: a file of weights has no images to measure them again.
    """
    if not measures_fields(config.assigner):
        return config
    update = {"fields": tuple(sides_of(net)), "refresh_fields": 0}
    return config.model_copy(update={"assigner": config.assigner.model_copy(update=update)})
