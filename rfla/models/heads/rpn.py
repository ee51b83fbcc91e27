"""Region proposal network (arXiv 1506.01497): where objects may be, for the second stage.

`forward` pyramid to raw predictions, `assign` anchors to boxes, `loss`, `decode` to proposals.
Shapes: B images, L levels, P anchors over all levels, A anchors of a cell, K proposals. Boxes are
xyxy px.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from rfla.assign import RandomSampler
from rfla.cfg.model_schema import ModelConfig
from rfla.cfg.two_stage_schema import smooth_l1_beta
from rfla.models.backbones.backbone import Backbone
from rfla.models.blocks import init_normal
from rfla.models.detector import ImageSizes, Losses, Raw, Target
from rfla.models.priors import Anchors, best_candidates, build_anchors, take
from rfla.models.ranks import mean_over_ranks
from rfla.names import Quality
from rfla.ops.boxes import flatten_levels
from rfla.ops.coding import DeltaCoder
from rfla.ops.device import to_device
from rfla.ops.losses import smooth_l1
from rfla.ops.nms import class_nms
from rfla.ops.quality import localization_quality


class Proposals(NamedTuple):
    """Boxes where objects may be, before suppression, as many in each image of a batch.

    Attributes:
        boxes: (B, K, 4) clipped to their image.
        scores: (B, K) from 0 to 1.
        levels: (K,) the level of each; one suppresses others of its level alone.
    """

    boxes: Tensor
    scores: Tensor
    levels: Tensor


class RPNHead(nn.Module):
    """One 3x3 convolution shared by the levels, then objectness and box offsets of each anchor.

    Args:
        in_channels: channels of the pyramid.
        anchors: the anchors and their assigner.
        sampler: picks the anchors that the loss looks at.
        width: channels of the shared convolution.
        beta: see `smooth_l1`; 0 is L1.
        quality: what the objectness of a positive anchor learns: 1 (`none`), or how well the
            proposal made of it sits, see `localization_quality`.
        target_anchor_scale: targets are encoded against anchors scaled by this. The authors'
            assigner shrinks the caller's anchors in place, so that they trained with 0.9; right is
            1, as decoding takes them as they are.
        nms_pre: candidates of each level.
        nms_iou: overlap above which a proposal suppresses another of its level.
        max_proposals: proposals of an image.
    """

    def __init__(
        self,
        in_channels: int,
        anchors: Anchors,
        sampler: RandomSampler,
        *,
        width: int = 256,
        beta: float = 0.0,
        quality: Literal["none", Quality] = "none",
        target_anchor_scale: float = 1.0,
        nms_pre: int = 3000,
        nms_iou: float = 0.7,
        max_proposals: int = 3000,
    ) -> None:
        super().__init__()
        self.anchors, self.sampler, self.coder = anchors, sampler, DeltaCoder()
        self.rpn_conv = nn.Conv2d(in_channels, width, 3, padding=1)
        self.rpn_cls = nn.Conv2d(width, anchors.per_cell, 1)
        self.rpn_reg = nn.Conv2d(width, anchors.per_cell * 4, 1)
        for conv in (self.rpn_conv, self.rpn_cls, self.rpn_reg):
            init_normal(conv)
        self.beta, self.quality = beta, quality
        self.target_anchor_scale = target_anchor_scale
        self.nms_pre, self.nms_iou, self.max_proposals = nms_pre, nms_iou, max_proposals

    @classmethod
    def from_config(cls, config: ModelConfig, backbone: Backbone, strides: Sequence[int]) -> Self:
        """Build it on all levels of a pyramid of these strides, with random weights."""
        section = config.rpn
        return cls(
            config.neck.width,
            build_anchors(config, backbone, strides),
            RandomSampler(section.samples, section.pos_fraction),
            width=config.head.width,
            beta=smooth_l1_beta(section),
            quality=section.quality,
            target_anchor_scale=section.target_anchor_scale,
            nms_pre=section.nms_pre,
            nms_iou=section.nms_iou,
            max_proposals=section.max_proposals,
        )

    def forward(self, pyramid: Sequence[Tensor]) -> Raw:
        """Pyramid to lists per level.

        `objectness` (B, A, H, W) logits, `reg` (B, A * 4, H, W) encoded offsets from the anchors.
        """
        raw: Raw = {"objectness": [], "reg": []}
        for level in pyramid:
            shared = functional.relu(self.rpn_conv(level))
            raw["objectness"].append(self.rpn_cls(shared))
            raw["reg"].append(self.rpn_reg(shared))
        return raw

    def assign(self, raw: Raw, targets: Sequence[Target], image_sizes: ImageSizes) -> Tensor:
        """Which box each anchor learns: (B, P) int64, -1 background, -2 ignored."""
        return self.anchors.assign(raw["objectness"], targets, image_sizes)

    def loss(
        self, raw: Raw, matched: Tensor, targets: Sequence[Target], seeds: Sequence[int]
    ) -> Losses:
        """Compute `loss_rpn_cls` (binary cross entropy) and `loss_rpn_bbox`, in float32 always.

        Args:
            raw: from `forward`.
            matched: (B, P) from `assign`.
            targets: B truths.
            seeds: what decides the random sample of each image.
        """
        # Numbers of samples decide the shapes below, so they are drawn where the host knows them:
        # one wait for a GPU here, for all images, and none after it.
        on_host = matched.cpu()
        samples = [self.sampler(*one) for one in zip(on_host, seeds, strict=True)]
        # An image without a positive (or a negative) counts as having one, as in the authors' code.
        total = sum(
            max(len(sample.positive), 1) + max(len(sample.negative), 1) for sample in samples
        )
        normalizer = mean_over_ranks(to_device(float(total), matched.device))

        # indices into the anchors of all images, image by image
        anchors_per_image = matched.shape[1]
        starts = [image * anchors_per_image for image in range(len(samples))]
        positives = [one.positive + s for one, s in zip(samples, starts, strict=True)]
        negatives = [one.negative + s for one, s in zip(samples, starts, strict=True)]
        chosen = torch.cat([*positives, *negatives]).to(matched.device, non_blocking=True)
        positive = chosen[: sum(len(one) for one in positives)]
        with torch.autocast(matched.device.type, enabled=False):
            owners = torch.split(matched.flatten()[positive], [len(one) for one in positives])
            own = [target["boxes"][owner] for target, owner in zip(targets, owners, strict=True)]
            true_boxes, cell = torch.cat(own), positive % anchors_per_image
            deltas = flatten_levels(raw["reg"], 4).flatten(0, 1)[positive]
            encoded = self.coder.encode(self.target_anchors(raw)[cell], true_boxes)
            loss_box = smooth_l1(deltas, encoded, self.beta).sum()

            objectness = flatten_levels(raw["objectness"], 1).flatten()
            logits = objectness[chosen].float()
            truth = torch.zeros_like(logits)
            truth[: len(positive)] = 1
            if self.quality != "none":
                boxes = self.coder.decode(self.anchors.grid(raw["objectness"]).boxes[cell], deltas)
                truth[: len(positive)] = localization_quality(boxes, true_boxes, self.quality)
            loss_cls = functional.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
        return {"loss_rpn_cls": loss_cls / normalizer, "loss_rpn_bbox": loss_box / normalizer}

    @torch.no_grad()
    def candidates(self, raw: Raw, image_sizes: Tensor) -> Proposals:
        """The best anchors of each level, decoded in float32 and clipped to their image.

        Args:
            raw: from `forward`.
            image_sizes: (B, 2) height and width before padding, px.
        """
        with torch.autocast(raw["reg"][0].device.type, enabled=False):
            grid = self.anchors.grid(raw["objectness"])
            scores = flatten_levels(raw["objectness"], 1)[..., 0].float().sigmoid()
            levels = best_candidates(scores, grid.level_counts, self.nms_pre)
            index = torch.cat(levels, dim=1)  # (B, K)
            deltas = take(flatten_levels(raw["reg"], 4), index)
            boxes = self.coder.decode(grid.boxes[index], deltas, image_sizes[:, None])
            counts = [level.shape[1] for level in levels]
            level_of = torch.cat(
                [torch.full((n,), i, device=scores.device) for i, n in enumerate(counts)]
            )
            return Proposals(boxes, scores.gather(1, index), level_of)

    @torch.no_grad()
    def decode(self, raw: Raw, image_sizes: ImageSizes) -> list[Tensor]:
        """Proposals (K, 5) of each image: box and score, best first, clipped to the image."""
        sizes = to_device(image_sizes, raw["reg"][0].device)
        boxes, scores, level_of = self.candidates(raw, sizes)
        proposals = []
        for own, own_scores in zip(boxes, scores, strict=True):
            # a proposal suppresses others of its level alone
            kept = class_nms(own, own_scores, level_of, self.nms_iou, self.max_proposals)
            proposals.append(torch.cat([own, own_scores[:, None]], dim=1)[kept])
        return proposals

    def target_anchors(self, raw: Raw) -> Tensor:
        """Anchors (P, 4) that targets are encoded against."""
        grid = self.anchors.grid(raw["objectness"])
        if self.target_anchor_scale == 1:
            return grid.boxes
        return grid.scaled(self.target_anchor_scale).boxes
