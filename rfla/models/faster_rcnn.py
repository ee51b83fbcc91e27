"""Faster R-CNN (arXiv 1506.01497): proposals from an RPN, then box heads on pooled features.

`forward` pixels to losses or detections, `assign` anchors to boxes, `loss`, `decode`. The two terms
of `loss` are `RPNHead.loss` (`heads/rpn.py`) and `RoIHead.loss` (`heads/roi.py`). RFLA changes one
thing, the assigner of the RPN (arXiv 2208.08738, section 4.1). Cascade R-CNN and DetectoRS are this
with another RoI head and another pyramid.

Shapes: B images, P anchors over all levels, K proposals of one image. Boxes are xyxy in px of the
network input.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rfla.assign import PriorGrid
from rfla.models.detector import Detections, Detector, ImageSizes, Losses, Raw, Target, inputs
from rfla.models.heads.roi import RoIHead
from rfla.models.heads.rpn import RPNHead


class FasterRCNN(Detector):
    """A detector that looks twice.

    Args:
        backbone: pixels to stages.
        neck: stages to levels.
        rpn_head: levels to proposals.
        roi_head: proposals to detections; with several stages it is Cascade R-CNN.
        num_classes: without background.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn_head: RPNHead,
        roi_head: RoIHead,
        *,
        num_classes: int,
    ) -> None:
        super().__init__(backbone, neck, num_classes)
        self.rpn_head, self.roi_head = rpn_head, roi_head

    def forward(
        self,
        images: Tensor,
        targets: list[Target] | None = None,
        image_sizes: ImageSizes | None = None,
    ) -> Losses | list[Detections]:
        """Losses in training mode, detections in evaluation mode.

        Args:
            images: (B, 3, H, W) normalised.
            targets: B truths in training mode; in evaluation mode left out, `image_sizes` may stand
                in their place.
            image_sizes: (height, width) of each image before padding; anchors and boxes stay within
                it.
        """
        targets, image_sizes = inputs(self, images, targets, image_sizes)
        pyramid = self.pyramid(images)
        raw = self.rpn_head(pyramid)
        if self.training:
            return self.loss(pyramid, raw, targets, image_sizes)
        return self.decode(pyramid, raw, image_sizes)

    def raw(self, images: Tensor) -> Raw:
        """RPN's predictions before decoding, lists per level: `objectness` logits (also as `cls`), `reg` offsets."""
        raw = self.rpn_head(self.pyramid(images))
        return {**raw, "cls": raw["objectness"]}

    def assign(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> Tensor:
        """Which box each anchor of the RPN learns: (B, P) int64, -1 background, -2 ignored."""
        return self.rpn_head.assign(raw, targets, image_sizes)

    def priors(
        self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes
    ) -> tuple[PriorGrid, Tensor]:
        """Return the anchors of the RPN and which box each learns (B, P), for pictures."""
        return self.rpn_head.anchors.grid(raw["objectness"]), self.assign(raw, targets, image_sizes)

    def loss(
        self,
        pyramid: Sequence[Tensor],
        raw: Raw,
        targets: Sequence[Target],
        image_sizes: ImageSizes,
    ) -> Losses:
        """`loss_rpn_cls`, `loss_rpn_bbox`, and the losses of each stage of the RoI head."""
        matched = self.assign(raw, targets, image_sizes)
        positives = (matched >= 0).sum()
        self.statistics = {
            "positives": positives,
            "boxes": positives.new_tensor(sum(len(t["boxes"]) for t in targets)),
        }
        seeds = image_seeds(targets)
        losses = self.rpn_head.loss(raw, matched, targets, seeds)
        proposals = [boxes[:, :4] for boxes in self.rpn_head.decode(raw, image_sizes)]
        return losses | self.roi_head.loss(pyramid, proposals, targets, image_sizes, seeds)

    def decode(
        self, pyramid: Sequence[Tensor], raw: Raw, image_sizes: ImageSizes
    ) -> list[Detections]:
        """Raw predictions of the RPN, and the pyramid they came from, to the detections of each image."""
        proposals = [boxes[:, :4] for boxes in self.rpn_head.decode(raw, image_sizes)]
        return self.roi_head.decode(pyramid, proposals, image_sizes)


def image_seeds(targets: Sequence[Target]) -> list[int]:
    """Draw a seed for the samples of each image.

    It depends on torch's CPU generator and on the image's own boxes, not on its place in the batch:
    processes that start from one seed and share a batch draw what a single process would.
    """
    step = int(torch.randint(2**31, ()))
    sums = [
        target["boxes"].float().contiguous().view(torch.int32).sum(dtype=torch.int64)
        for target in targets
    ]
    return [(step + content) % 2**63 for content in torch.stack(sums).tolist()]
