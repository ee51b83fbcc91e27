"""What all detectors share: a backbone, a pyramid, and the words of their contract.

Every detector has `forward`, `assign`, `loss` and `decode`. In training mode `forward` returns a dict of named scalar
losses; in evaluation mode a list of detections.

Shapes: B images, G boxes of one image, N detections of one image, (H, W) px. Boxes are xyxy in px of the input.
"""

from collections.abc import Sequence
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
    "sizes_or_full",
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
        statistics: filled by a training forward, for the loss line: `positives` and `boxes`, scalars on the device.
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


def sizes_or_full(images: Tensor, image_sizes: ImageSizes | None) -> ImageSizes:
    """The given (height, width) of each image before padding, or the whole tensor's."""
    return image_sizes if image_sizes is not None else [(images.shape[-2], images.shape[-1])] * len(images)


def feature_sizes(levels: list[Tensor]) -> tuple[tuple[int, int], ...]:
    """(H, W) of each level."""
    return tuple((level.shape[-2], level.shape[-1]) for level in levels)
