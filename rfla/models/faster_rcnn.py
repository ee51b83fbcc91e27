"""Faster R-CNN (arXiv 1506.01497): proposals from an RPN, then a box head on pooled features.

`raw`, `assign`, `loss`, `decode`, and how it is built. The terms of `loss` are `RPNHead.loss`
(`heads/rpn.py`) and `RoIHead.loss` (`heads/roi.py`). RFLA changes one thing, the assigner of the
RPN (arXiv 2208.08738, section 4.1). Cascade R-CNN adds stages, DetectoRS another pyramid.

Shapes: B images, P anchors over all levels, K proposals of one image. Boxes are xyxy in px of the
network input.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from rfla.assign import PriorGrid
from rfla.cfg.model_schema import ModelConfig
from rfla.errors import ConfigError
from rfla.models.backbones.backbone import Backbone
from rfla.models.backbones.build import build_backbone
from rfla.models.detector import Detector, ImageSizes, Raw, StepLosses, Target, step_counts
from rfla.models.heads.roi import RoIHead
from rfla.models.heads.rpn import RPNHead
from rfla.models.necks.fpn import FPN
from rfla.ops.nms import ImageDetections


class FasterRCNN(Detector):
    """A two-stage detector: an RPN proposes boxes, an RoI head classifies and refines them.

    Args:
        backbone: pixels to stages.
        neck: stages to levels.
        rpn_head: levels to proposals.
        roi_head: proposals to detections, in one stage.
        num_classes: without background.
    """

    def __init__(
        self,
        backbone: Backbone,
        neck: FPN,
        rpn_head: RPNHead,
        roi_head: RoIHead,
        *,
        num_classes: int,
    ) -> None:
        super().__init__(backbone, neck, num_classes)
        self.rpn_head, self.roi_head = rpn_head, roi_head

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int) -> Self:
        """Build it, on P2 to P6, with random weights.

        Raises:
            ConfigError: `roi` has several stages, which are a cascade.
        """
        if len(config.roi.pos_iou) != 1:
            raise ConfigError(
                f"detector=faster_rcnn has one stage, and roi.pos_iou {len(config.roi.pos_iou)}; "
                "detector=cascade_rcnn takes several"
            )
        return cls._on_pyramid(config, num_classes)

    @classmethod
    def _on_pyramid(cls, config: ModelConfig, num_classes: int) -> Self:
        """Build it on a plain pyramid, with as many stages as `roi` has."""
        backbone = build_backbone(config.backbone)
        neck = FPN.from_config(config.neck, backbone)
        rpn_head = RPNHead.from_config(config, backbone, neck.strides)
        roi_head = RoIHead.from_config(config, neck.strides, num_classes)
        return cls(backbone, neck, rpn_head, roi_head, num_classes=num_classes)

    def raw(self, images: Tensor) -> Raw:
        """What the RPN predicts, before decoding, and what the second stage pools from.

        Lists per level: `objectness` (B, A, H, W) logits, also as `cls`, `reg` (B, A * 4, H, W)
        encoded offsets from the anchors, `pyramid` (B, D, H, W).
        """
        pyramid = self.pyramid(images)
        raw: Raw = self.rpn_head(pyramid)
        return raw | {"cls": raw["objectness"], "pyramid": pyramid}

    def assign(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> Tensor:
        """Which box each anchor of the RPN learns: (B, P) int64, -1 background, -2 ignored."""
        return self.rpn_head.assign(raw, targets, image_sizes)

    def grid(self, raw: Raw) -> PriorGrid:
        """The anchors of the RPN."""
        return self.rpn_head.anchors.grid(raw["objectness"])

    def loss(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> StepLosses:
        """`loss_rpn_cls` and `loss_rpn_bbox` of the proposals, `loss_cls` and `loss_bbox`."""
        matched = self.assign(raw, targets, image_sizes)
        seeds = image_seeds(targets)
        losses = self.rpn_head.loss(raw, matched, targets, seeds)

        # the second stage learns from this step's proposals, without a gradient through them
        proposals = self.proposals(raw, image_sizes)
        samples = self.roi_head.assign(proposals, targets, seeds)
        logits, offsets = self.roi_head(raw["pyramid"], [sample.boxes for sample in samples])
        losses |= self.roi_head.loss(samples, logits, offsets)
        return StepLosses(losses, step_counts((matched >= 0).sum(), targets))

    def proposals(self, raw: Raw, image_sizes: ImageSizes) -> list[Tensor]:
        """Where objects may be: boxes (K, 4) of each image, best first."""
        return [boxes[:, :4] for boxes in self.rpn_head.decode(raw, image_sizes)]

    @torch.no_grad()
    def decode(self, raw: Raw, image_sizes: ImageSizes) -> list[ImageDetections]:
        """Raw predictions to the detections of each image."""
        proposals = self.proposals(raw, image_sizes)
        logits, offsets = self.roi_head(raw["pyramid"], proposals)
        return self.roi_head.decode(proposals, logits, offsets, image_sizes)


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
