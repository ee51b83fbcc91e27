"""What a detector is: one forward for all, and the four methods that each of them writes.

`raw` runs the network, `assign` gives its points or anchors to boxes, `loss` scores the raw
predictions against the targets, `decode` turns them into detections.

Shapes: B images, P priors (points or anchors) over all levels, G boxes of one image, I ignore
regions of one image, (H, W) px. Boxes are xyxy in px of the input.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Self, TypedDict

import torch
from torch import Tensor, nn

from rfla.assign import PriorGrid
from rfla.assign.arguments import box_rows, require_entries
from rfla.cfg.model_schema import ModelConfig
from rfla.models.backbones.backbone import Backbone
from rfla.models.necks.fpn import FPN
from rfla.ops.device import to_device
from rfla.ops.nms import Candidates, DetectionLimits, ImageDetections, select_batch

ImageSizes = Sequence[tuple[int, int]]
"""(height, width) of each image before padding, px."""
Raw = dict[str, list[Tensor]]
"""Predictions before decoding: for each name a list of maps, one for each level, finest first."""
Losses = dict[str, Tensor]
"""Named scalars in float32; their sum is what training minimises."""


class Target(TypedDict, total=False):
    """Truth of one image.

    `boxes` (G, 4) float32, `labels` (G,) int64 from 0, and optionally `ignore` (I, 4) float32.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor


class StepLosses(NamedTuple):
    """What a training step computes.

    Attributes:
        losses: named scalars.
        counts: `positives` and `boxes` of the batch, scalars on the device.
    """

    losses: Losses
    counts: dict[str, Tensor]


class Detector(nn.Module, ABC):
    """Backbone and pyramid, and what is predicted on its levels.

    Attributes:
        config: what it was built from (set by `build_from_config`).
        num_classes: without background.
    """

    config: ModelConfig

    def __init__(self, backbone: Backbone, neck: FPN, num_classes: int) -> None:
        super().__init__()
        self.backbone, self.neck, self.num_classes = backbone, neck, num_classes

    @classmethod
    @abstractmethod
    def from_config(cls, config: ModelConfig, num_classes: int) -> Self:
        """Build it with random weights.

        Raises:
            ConfigError: settings that this detector cannot have.
        """

    def forward(
        self,
        images: Tensor,
        targets: Sequence[Target] | None = None,
        *,
        image_sizes: ImageSizes | None = None,
        with_counts: bool = False,
    ) -> Losses | StepLosses | list[ImageDetections]:
        """Losses in training mode, detections in evaluation mode.

        Args:
            images: (B, 3, H, W) normalised.
            targets: B truths in training mode; none in evaluation mode.
            image_sizes: (height, width) of each image before padding, to which boxes are clipped
                and anchors restricted; None is the whole tensor's.
            with_counts: in training mode, return `StepLosses` and not its losses alone.

        Raises:
            ValueError: no images; no targets in training mode, or targets in evaluation mode;
                targets or sizes for another number of images; boxes and labels that do not go
                together.
        """
        if self.training == (targets is None):
            raise ValueError(
                "training needs targets"
                if self.training
                else "evaluation takes no targets; sizes before padding go in image_sizes="
            )
        if not len(images):
            raise ValueError("images: at least one is needed")
        if image_sizes is None:
            image_sizes = [(images.shape[-2], images.shape[-1])] * len(images)
        require_entries("image_sizes", image_sizes, len(images))
        if targets is not None:
            require_entries("targets", targets, len(images))
            targets = [_checked(one, at, self.num_classes) for at, one in enumerate(targets)]
        raw = self.raw(images)
        if targets is None:
            return self.decode(raw, image_sizes)
        step = self.loss(raw, targets, image_sizes)
        return step if with_counts else step.losses

    @property
    def backbones(self) -> list[Backbone]:
        """Every backbone: one, but for DetectoRS."""
        return [self.backbone]

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised images to the feature maps of all levels, finest first."""
        levels: list[Tensor] = self.neck(self.backbone(images))
        return levels

    @abstractmethod
    def raw(self, images: Tensor) -> Raw:
        """(B, 3, H, W) normalised images to predictions before decoding; `cls` is always there."""

    @abstractmethod
    def assign(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> Tensor | None:
        """Which box each prior learns: (B, P) int64, -1 background, -2 ignored.

        None where the detector has no assigner, and boxes choose their points as they learn.
        """

    @abstractmethod
    def loss(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> StepLosses:
        """Named scalar losses, in float32 whatever autocast says, and what they count."""

    @abstractmethod
    def decode(self, raw: Raw, image_sizes: ImageSizes) -> list[ImageDetections]:
        """Raw predictions to the detections of each image."""

    @abstractmethod
    def grid(self, raw: Raw) -> PriorGrid:
        """The points or anchors of these maps."""

    @torch.no_grad()
    def priors(
        self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes
    ) -> tuple[PriorGrid, Tensor] | None:
        """The points or anchors and which box each learns (B, P), for pictures; see `assign`."""
        matched = self.assign(raw, targets, image_sizes)
        return None if matched is None else (self.grid(raw), matched)


class DenseDetector(Detector):
    """A detector in one stage: each prior predicts classes and a box, and NMS does the rest.

    Attributes:
        limits: which detections are kept.
    """

    def __init__(
        self, backbone: Backbone, neck: FPN, limits: DetectionLimits, num_classes: int
    ) -> None:
        super().__init__(backbone, neck, num_classes)
        self.limits = limits

    @abstractmethod
    def candidates(self, raw: Raw, image_sizes: Tensor) -> Candidates:
        """The best priors of each level, decoded in float32 and clipped to their image.

        Args:
            raw: from `raw`.
            image_sizes: (B, 2) height and width before padding, px.
        """

    @torch.no_grad()
    def decode(self, raw: Raw, image_sizes: ImageSizes) -> list[ImageDetections]:
        """Raw predictions to the detections of each image."""
        sizes = to_device(image_sizes, raw["cls"][0].device)
        return select_batch(self.candidates(raw, sizes), self.limits)


def _checked(target: Target, number: int, num_classes: int) -> Target:
    """Return the truth of one image with boxes (G, 4), labels (G,) and, if any, regions (I, 4).

    Shapes are looked at, and on a CPU labels: a GPU would have to be waited for.

    Raises:
        ValueError: With the number of the image.
    """
    where = f"targets[{number}]"
    if missing := {"boxes", "labels"} - target.keys():
        raise ValueError(f"{where}: {' and '.join(sorted(missing))} expected")
    boxes, labels = box_rows(target["boxes"], f"{where}['boxes']"), target["labels"]
    if labels.shape != (len(boxes),):
        raise ValueError(
            f"{where}: a label for each of {len(boxes)} boxes expected, not {tuple(labels.shape)}"
        )
    if not labels.numel():
        labels = labels.long()  # torch.tensor([]) is float32
    if labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise ValueError(f"{where}: labels are numbers of classes, not {labels.dtype}")
    if labels.numel() and labels.device.type == "cpu":
        low, high = labels.aminmax()
        if low < 0 or high >= num_classes:
            found = f"{int(low)} to {int(high)}"
            raise ValueError(f"{where}: labels from 0 to {num_classes - 1} expected, not {found}")
    whole: Target = {"boxes": boxes, "labels": labels}
    if (regions := target.get("ignore")) is not None:
        whole["ignore"] = box_rows(regions, f"{where}['ignore']")
    return whole


def step_counts(positives: Tensor, targets: Sequence[Target]) -> dict[str, Tensor]:
    """`StepLosses.counts` from the number of positives, without a look at the device's values."""
    boxes = sum(len(target["boxes"]) for target in targets)
    return {"positives": positives, "boxes": torch.full_like(positives, boxes)}


def feature_sizes(levels: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    """(H, W) of each level."""
    return tuple((level.shape[-2], level.shape[-1]) for level in levels)
