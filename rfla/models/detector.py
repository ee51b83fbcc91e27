"""What all detectors share: a backbone, a pyramid, and the words of their contract.

Every detector has `forward`, `assign`, `loss` and `decode`. In training mode `forward` returns a dict of named scalar
losses; in evaluation mode a list of detections.

Shapes: B images, G boxes of one image, N detections of one image, (H, W) px. Boxes are xyxy in px of the input.
"""

from collections.abc import Sequence
from typing import TypedDict

from torch import Tensor, nn

ImageSizes = Sequence[tuple[int, int]]
Raw = dict[str, list[Tensor]]
Losses = dict[str, Tensor]


class Target(TypedDict, total=False):
    """Truth of one image: `boxes` (G, 4) float32, `labels` (G,) int64 from 0, `ignore` (I, 4) float32 (optional)."""

    boxes: Tensor
    labels: Tensor
    ignore: Tensor


class Detections(TypedDict):
    """`boxes` (N, 4), `scores` (N,) best first, `labels` (N,) int64 from 0."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Detector(nn.Module):
    """Backbone and pyramid.

    Attributes:
        num_classes: without background.
        statistics: filled by a training forward, for the loss line: `positives` and `boxes`, scalars on the device.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.backbone, self.neck, self.num_classes = backbone, neck, num_classes
        self.statistics: dict[str, Tensor] = {}

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised images to the feature maps of all levels, finest first."""
        return self.neck(self.backbone(images))


def sizes_or_full(images: Tensor, image_sizes: ImageSizes | None) -> ImageSizes:
    """The given (height, width) of each image before padding, or the whole tensor's."""
    return image_sizes if image_sizes is not None else [tuple(images.shape[-2:])] * len(images)


def feature_sizes(levels: list[Tensor]) -> tuple[tuple[int, int], ...]:
    """(H, W) of each level."""
    return tuple((level.shape[-2], level.shape[-1]) for level in levels)
