"""RFD, the Receptive Field Detector: a dense detector that can fit what RFLA assigns to it.

RFLA gives tiny boxes points that lie outside of them. FCOS codes a box by distances that are never
negative and scales its losses by centerness, so it cannot learn from such points. RFD keeps the
paper's assignment and changes the head: a signed box code (`FieldCoder`), a second look at each
box that was found (`SecondLook`), the fit of the box that results as the target of its class score
(`localization_quality`), and no centerness.

`loss` is here, and how it is built; `raw` and `assign` are in `PointDetector`, `decode` is in
`DenseDetector`.

Shapes: B images, P points over all levels, K chosen ones of each image, C classes. Boxes are xyxy
in px of the network input.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from rfla.cfg.model_schema import ModelConfig
from rfla.errors import ConfigError
from rfla.models.assigners import build_assigner, points_baseline
from rfla.models.backbones.backbone import Backbone
from rfla.models.backbones.build import build_backbone
from rfla.models.detector import ImageSizes, Raw, StepLosses, Target, step_counts
from rfla.models.heads.rfd import FieldHead
from rfla.models.heads.second_look import SecondLook
from rfla.models.limits import build_limits
from rfla.models.necks.fpn import FPN
from rfla.models.points import PointDetector, quality_class_loss
from rfla.models.priors import Points, build_points, take
from rfla.models.ranks import divisor_over_ranks
from rfla.names import BoxLoss, Quality, QualityLoss
from rfla.ops.boxes import flatten_levels
from rfla.ops.losses import box_loss
from rfla.ops.nms import DetectionLimits
from rfla.ops.quality import localization_quality

LOOKS = 256
"""Points per image that the second look trains on: about the positives of 95 boxes."""


class RFD(PointDetector):
    """A dense detector whose prior is the receptive field.

    Args:
        backbone: pixels to stages.
        neck: stages to levels.
        head: levels to raw predictions.
        points: the points and their assigner.
        limits: which detections are kept.
        num_classes: without background.
        box_loss_kind: `giou`, `diou`, `iou` or `ciou`.
        quality: what the class score of a positive point learns, see `localization_quality`.
        cls_loss: how it learns that, see `quality_class_loss`.
        loss_weights: of classification, boxes, the coded sides and the boxes of the second look.
        focal: alpha (varifocal alone) and the exponent of the class loss.
    """

    head: FieldHead

    def __init__(
        self,
        backbone: Backbone,
        neck: FPN,
        head: FieldHead,
        points: Points,
        limits: DetectionLimits,
        *,
        num_classes: int,
        box_loss_kind: BoxLoss = "giou",
        quality: Quality = "max",
        cls_loss: QualityLoss = "quality_focal",
        loss_weights: tuple[float, float, float, float] = (1.0, 1.0, 0.5, 2.0),
        focal: tuple[float, float] = (0.25, 2.0),
    ) -> None:
        super().__init__(backbone, neck, head, points, limits, num_classes=num_classes)
        self.box_loss_kind, self.quality, self.cls_loss = box_loss_kind, quality, cls_loss
        self.loss_weights, self.focal = loss_weights, focal

    @classmethod
    def from_config(cls, config: ModelConfig, num_classes: int) -> Self:
        """Build RFD on P2 to P5, or the levels of `neck`, with random weights.

        Raises:
            ConfigError: no quality: the class scores would have nothing to learn; or a part of
                FCOS that this head does without.
        """
        section, loss = config.head, config.loss
        if loss.quality == "none":
            raise ConfigError("loss.quality=none: rfd takes iou, gaussian, max or kl")
        if loss.centerness or loss.weighting not in (None, "equal"):
            raise ConfigError(
                "loss.centerness, loss.weighting: rfd has no centerness and weighs positives "
                "alike; fcos_p2 with loss.coding=field takes them"
            )
        backbone = build_backbone(config.backbone)
        neck = FPN.from_config(config.neck, backbone)
        own_rule = points_baseline(config.assigner, len(neck.strides))
        assigner = build_assigner(config.assigner, baseline=own_rule)
        look = None
        if section.second_look:
            width = section.width if section.depth else neck.width
            look = SecondLook(width, neck.strides[0], section.second_look)
        sizes = (len(neck.strides), section.width, section.depth, section.norm)
        return cls(
            backbone,
            neck,
            FieldHead(neck.width, num_classes, *sizes, second_look=look),
            build_points(config, backbone, neck.strides, assigner),
            build_limits(config.test),
            num_classes=num_classes,
            box_loss_kind=loss.box,
            quality=loss.quality,
            cls_loss=loss.cls,
            loss_weights=(loss.cls_weight, loss.box_weight, loss.side_weight, loss.look_weight),
            focal=(loss.focal_alpha, loss.focal_gamma),
        )

    def boxes_at(self, raw: Raw, index: Tensor) -> Tensor:
        """(B, K, 4) boxes of the points `index` (B, K), after the second look, float32."""
        return self.look_again(raw, take(self.boxes(raw), index))

    def look_again(self, raw: Raw, boxes: Tensor) -> Tensor:
        """(B, K, 4) boxes to what the second look makes of them; as they are without one."""
        if self.head.second_look is None:
            return boxes
        moved: Tensor = self.head.second_look(raw["finest"][0], boxes)
        return moved

    def loss(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> StepLosses:
        """`loss_cls` (of the quality), `loss_bbox`, `loss_side` and `loss_look`, in float32.

        Points that learn no box weigh 0 in place of being picked out: the host never waits for the
        device.
        """
        with torch.autocast(raw["cls"][0].device.type, enabled=False):
            matched = self.assign(raw, targets, image_sizes)  # (B, P)
            assert matched is not None  # only AutoAssign can do without an assigner
            logits = flatten_levels(raw["cls"], self.num_classes)  # (B, P, C)
            coder, code = self.coder(raw), flatten_levels(raw["reg"], 4)
            pred_boxes = coder.decode(code)  # (B, P, 4)
            positive = matched >= 0
            labels, gt_boxes = self.matched_boxes(raw, matched, targets)

            loss_look, final_boxes = self._second_look(raw, pred_boxes, gt_boxes, positive)

            # A class score says how well the box sits: it ranks boxes of one object for NMS.
            quality = localization_quality(
                final_boxes.flatten(0, 1), gt_boxes.flatten(0, 1), self.quality
            ).view_as(labels)
            quality = torch.where(positive, quality, 0.0)
            loss_cls = quality_class_loss(
                logits, labels, quality, matched, self.cls_loss, self.focal
            )

            # Positives count alike: weights by centre or fit would silence those outside a box,
            # the ones that tiny objects have.
            count = positive.sum()
            positives = divisor_over_ranks(count.float())
            fit_losses = box_loss(
                pred_boxes.flatten(0, 1), gt_boxes.flatten(0, 1), self.box_loss_kind
            ).view_as(labels)
            loss_box = torch.where(positive, fit_losses, 0.0).sum()

            loss_side = torch.where(positive, coder.side_errors(code, gt_boxes), 0.0).sum()
        cls_weight, box_weight, side_weight, look_weight = self.loss_weights
        losses = {
            "loss_cls": loss_cls * cls_weight,
            "loss_bbox": loss_box / positives * box_weight,
            "loss_side": loss_side / positives * side_weight,
        }
        if loss_look is not None:
            losses["loss_look"] = loss_look * look_weight
        return StepLosses(losses, step_counts(count, targets))

    def _second_look(
        self, raw: Raw, boxes: Tensor, gt_boxes: Tensor, positive: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """Loss of the boxes that are looked at again, and the boxes (B, P, 4) with these moved.

        On a GPU as many points of each image are looked at, whatever is positive, so that the host
        needs no count of them: positives first, in an order drawn by lot.
        """
        if self.head.second_look is None:
            return None, boxes
        looks = min(LOOKS, positive.shape[1])
        if not positive.is_cuda:  # a GPU would have to wait for the number
            looks = min(looks, max(int(positive.sum(dim=1).max()), 1))
        order = positive + torch.rand(positive.shape, device=positive.device)
        index = order.topk(looks, dim=1).indices  # (B, K)
        seen = positive.gather(1, index)
        moved = self.look_again(raw, take(boxes, index))  # (B, K, 4)
        losses = box_loss(
            moved.flatten(0, 1), take(gt_boxes, index).flatten(0, 1), self.box_loss_kind
        )
        total = torch.where(seen, losses.view_as(index), 0.0).sum()
        loss = total / divisor_over_ranks(seen.sum().float())
        place = index[..., None].expand(-1, -1, 4)
        return loss, boxes.detach().scatter(1, place, moved.detach())
