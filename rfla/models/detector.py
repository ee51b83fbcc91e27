"""What all detectors share: a backbone, a pyramid, and the words of their contract.

Every detector has `forward`, `assign`, `loss` and `decode`. In training mode `forward` returns a
dict of named scalar losses; in evaluation mode a list of detections.

Shapes: B images, G boxes of one image, N detections of one image, (H, W) px. Boxes are xyxy in px
of the input.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict, cast

from torch import Tensor, nn

from rfla.cfg.model_schema import ModelConfig
from rfla.ops.nms import Detections

__all__ = [
    "Backbone",
    "Detections",
    "Detector",
    "ImageSizes",
    "Losses",
    "Raw",
    "Target",
    "feature_sizes",
    "inputs",
]

ImageSizes = Sequence[tuple[int, int]]
Raw = dict[str, list[Tensor]]
Losses = dict[str, Tensor]


class Target(TypedDict, total=False):
    """Truth of one image: `boxes` (G, 4) float32, `labels` (G,) int64 from 0, `ignore` (I, 4) float32 (optional)."""

    boxes: Tensor
    labels: Tensor
    ignore: Tensor


class Backbone(nn.Module):
    """Pixels to stages, with what a builder and a trainer ask of it."""

    name: str
    conv1: nn.Conv2d

    def thaw(self) -> None:
        """Let everything learn, batch norm and its statistics included."""
        raise NotImplementedError

    def load_imagenet(self) -> bool:
        """Load torchvision's ImageNet weights; False where they cannot be had."""
        raise NotImplementedError


class Detector(nn.Module):
    """Backbone and pyramid.

    Attributes:
        config: what it was built from (set by `build_from_config`).
        num_classes: without background.
        statistics: filled by a training forward, for the loss line: `positives` and `boxes`,
            scalars on the device.
    """

    config: ModelConfig
    backbone: "Backbone"

    def __init__(self, backbone: nn.Module, neck: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.backbone, self.neck, self.num_classes = cast(Backbone, backbone), neck, num_classes
        self.statistics: dict[str, Tensor] = {}

    @property
    def backbones(self) -> list[Backbone]:
        """Every backbone: one, but for DetectoRS."""
        return [self.backbone]

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised images to the feature maps of all levels, finest first."""
        levels: list[Tensor] = self.neck(self.backbone(images))
        return levels


def inputs(
    net: nn.Module,
    images: Tensor,
    targets: list[Target] | ImageSizes | None,
    image_sizes: ImageSizes | None,
) -> tuple[list[Target], ImageSizes]:
    """Sort the arguments of a forward: `net(images, targets, image_sizes)` to train, `net(images, image_sizes)` after.

    Args:
        net: in training or in evaluation mode.
        images: (B, 3, H, W).
        targets: B truths, not looked at in evaluation mode; there the sizes may come in this place.
        image_sizes: (height, width) of each image before padding; None is the whole tensor's.

    Returns:
        The truths (empty in evaluation mode) and the sizes.
    """
    if not net.training and image_sizes is None and targets and not isinstance(targets[0], Mapping):
        image_sizes = cast(ImageSizes, targets)
    if net.training and targets is None:
        raise ValueError("training needs targets")
    sizes = (
        image_sizes
        if image_sizes is not None
        else [(images.shape[-2], images.shape[-1])] * len(images)
    )
    return cast(list[Target], targets) if net.training else [], sizes


def feature_sizes(levels: list[Tensor]) -> tuple[tuple[int, int], ...]:
    """(H, W) of each level."""
    return tuple((level.shape[-2], level.shape[-1]) for level in levels)
