"""Second stage of the two-stage detectors: what each proposal is, and where exactly.

`assign` proposals to boxes, `forward`, `loss`, `decode` to detections, each for one stage (Fast
R-CNN, arXiv 1504.08083). A cascade goes through several: its loop is in `cascade_rcnn.py`.

Shapes: B images, N proposals or RoIs of all images, K proposals of one image, G boxes of one image,
C classes. Boxes are xyxy px. Class C is background.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from rfla.assign import MaxIoUAssigner, RandomSampler, SampledPriors
from rfla.cfg.model_schema import ModelConfig
from rfla.cfg.two_stage_schema import smooth_l1_beta
from rfla.models.detector import ImageSizes, Losses, Target
from rfla.models.limits import build_limits
from rfla.models.ranks import mean_over_ranks
from rfla.models.roi_align import RoIAlignPyramid
from rfla.ops.boxes import starts_of
from rfla.ops.coding import DeltaCoder
from rfla.ops.device import to_device
from rfla.ops.losses import smooth_l1
from rfla.ops.nms import DetectionLimits, ImageDetections, select_detections

ROI_LEVELS = 4  # RoIs are pooled from the finest ones, P2 to P5 in the paper


class BoxHead(nn.Module):
    """Two shared fully connected layers, then class scores and box offsets of pooled RoIs.

    Args:
        in_features: channels times cells of a pooled RoI.
        num_classes: without background.
        width: channels of the shared layers.
        class_agnostic: one box for all classes.
    """

    def __init__(
        self, in_features: int, num_classes: int, width: int = 1024, class_agnostic: bool = False
    ) -> None:
        super().__init__()
        self.shared_fcs = nn.ModuleList([nn.Linear(in_features, width), nn.Linear(width, width)])
        self.fc_cls = nn.Linear(width, num_classes + 1)
        self.fc_reg = nn.Linear(width, 4 if class_agnostic else 4 * num_classes)
        for layer in (*self.shared_fcs, self.fc_cls, self.fc_reg):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Classify pooled RoIs and move them.

        Args:
            pooled: (N, D, S, S).

        Returns:
            Logits (N, C + 1), background last, and offsets (N, 4) or (N, C * 4), both float32.
        """
        # RoIs are pooled in float32 whatever the network is
        features = pooled.flatten(1).to(self.fc_cls.weight.dtype)
        for layer in self.shared_fcs:
            features = functional.relu(layer(features))
        return self.fc_cls(features).float(), self.fc_reg(features).float()


@dataclass(frozen=True)
class RoiStage:
    """What differs between the stages of a cascade."""

    assigner: MaxIoUAssigner
    coder: DeltaCoder
    weight: float = 1.0


@dataclass(frozen=True)
class RoISample:
    """Sampled RoIs of one image, n in all, the p positives first.

    Attributes:
        boxes: (n, 4).
        labels: (n,) class of the matched box, C for background.
        own: (p, 4) matched box of each positive.
        proposed: indices of the RoIs that are proposals. The others are true boxes, added so that
            even a bad first stage leaves positives.
    """

    boxes: Tensor
    labels: Tensor
    own: Tensor
    proposed: Tensor


class RoIHead(nn.Module):
    """One box head for each stage, over RoIs pooled from the pyramid.

    Args:
        pooler: cuts RoIs out of the pyramid.
        bbox_head: the box head of each stage.
        stages: the rules of each stage.
        sampler: picks the RoIs that the loss looks at.
        limits: which detections are kept.
        num_classes: without background.
        beta: see `smooth_l1`; 0 is L1.
    """

    def __init__(
        self,
        pooler: RoIAlignPyramid,
        bbox_head: Sequence[BoxHead],
        stages: Sequence[RoiStage],
        sampler: RandomSampler,
        limits: DetectionLimits,
        *,
        num_classes: int,
        beta: float = 0.0,
    ) -> None:
        super().__init__()
        self.pooler, self.bbox_head, self.stages = pooler, nn.ModuleList(bbox_head), tuple(stages)
        self.sampler, self.limits, self.num_classes, self.beta = sampler, limits, num_classes, beta

    @classmethod
    def from_config(cls, config: ModelConfig, strides: Sequence[int], num_classes: int) -> Self:
        """Build it on a pyramid of these strides, with random weights and all stages of `roi`."""
        section = config.roi
        features = config.neck.width * section.pool_size**2
        return cls(
            RoIAlignPyramid(strides[:ROI_LEVELS], section.pool_size, section.finest_scale),
            [
                BoxHead(features, num_classes, section.width, section.class_agnostic)
                for _ in section.pos_iou
            ],
            [
                RoiStage(
                    MaxIoUAssigner(iou, iou, iou, match_low_quality=False), DeltaCoder(stds), w
                )
                for iou, stds, w in zip(
                    section.pos_iou, section.stds, section.stage_weights, strict=True
                )
            ],
            RandomSampler(section.samples, section.pos_fraction),
            build_limits(config.test),
            num_classes=num_classes,
            beta=smooth_l1_beta(section),
        )

    def forward(
        self, pyramid: Sequence[Tensor], boxes: Sequence[Tensor], stage: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, C + 1) and offsets of the boxes (K, 4) of each image, by one stage's head."""
        images = torch.cat(
            [part.new_full((len(part), 1), float(index)) for index, part in enumerate(boxes)]
        )
        rois = torch.cat([images, torch.cat(list(boxes))], dim=1)
        predicted: tuple[Tensor, Tensor] = self.bbox_head[stage](self.pooler(pyramid, rois))
        return predicted

    @torch.no_grad()
    def assign(
        self,
        proposals: Sequence[Tensor],
        targets: Sequence[Target],
        seeds: Sequence[int],
        stage: int = 0,
    ) -> list[RoISample]:
        """Match and sample the RoIs of each image by the rule of one stage.

        Args:
            proposals: (K, 4) of each image.
            targets: B truths; their boxes join the proposals.
            seeds: what decides the random sample of each image.
            stage: whose overlap counts.
        """
        matched = []
        for boxes, target in zip(proposals, targets, strict=True):
            truth = target["boxes"]
            of_image = self.stages[stage].assigner(boxes, truth.float(), target.get("ignore"))
            own = torch.arange(len(truth), device=of_image.device)  # a true box has itself
            matched.append(torch.cat([own, of_image]))

        # The numbers of samples decide the shapes of all that follows, so they are drawn where the
        # host knows them: one wait for a GPU here, for all images, and none after it.
        on_host = torch.split(torch.cat(matched).cpu(), [len(row) for row in matched])
        drawn = [self.sampler(row, seed) for row, seed in zip(on_host, seeds, strict=True)]
        return [self._sampled(*one) for one in zip(proposals, targets, matched, drawn, strict=True)]

    def _sampled(
        self, proposals: Tensor, target: Target, matched: Tensor, drawn: SampledPriors
    ) -> RoISample:
        """The RoIs of one image: its true boxes and proposals (in this order) that were drawn."""
        truth = target["boxes"].float()
        on_host = torch.cat([drawn.positive, drawn.negative])
        proposed = (on_host >= len(truth)).nonzero().squeeze(1)
        chosen = on_host.to(matched.device, non_blocking=True)
        owner = matched[chosen[: len(drawn.positive)]]
        labels = matched.new_full((len(chosen),), self.num_classes)
        labels[: len(owner)] = target["labels"][owner]
        return RoISample(
            torch.cat([truth, proposals])[chosen],
            labels,
            truth[owner],
            proposed.to(matched.device, non_blocking=True),
        )

    def loss(
        self, samples: Sequence[RoISample], logits: Tensor, offsets: Tensor, stage: int = 0
    ) -> Losses:
        """`loss_cls` (cross entropy) and `loss_bbox` (L1 or smooth L1), in float32 always.

        Args:
            samples: RoIs of each image, from `assign`.
            logits: (N, C + 1) of these RoIs.
            offsets: (N, 4) or (N, C * 4) of these RoIs.
            stage: whose encoding of boxes counts.
        """
        with torch.autocast(logits.device.type, enabled=False):
            labels = torch.cat([sample.labels for sample in samples])
            count = mean_over_ranks(to_device(float(max(len(labels), 1)), logits.device))
            loss_cls = functional.cross_entropy(logits, labels, reduction="sum") / count

            positive = _first_of_each(samples).to(labels.device, non_blocking=True)
            boxes = torch.cat([sample.boxes for sample in samples])[positive]
            own_offsets = self.of_class(offsets[positive], labels[positive])
            own_boxes = torch.cat([sample.own for sample in samples])
            truth = self.stages[stage].coder.encode(boxes, own_boxes)
            loss_box = smooth_l1(own_offsets, truth, self.beta).sum() / count
        return {"loss_cls": loss_cls, "loss_bbox": loss_box}

    @torch.no_grad()
    def move(
        self,
        boxes: Sequence[Tensor],
        labels: Tensor,
        offsets: Tensor,
        image_sizes: ImageSizes,
        stage: int,
    ) -> list[Tensor]:
        """Move boxes by the offsets of their classes, and clip them to their image.

        Args:
            boxes: (K, 4) of each image.
            labels: (N,) class of each box.
            offsets: (N, 4) or (N, C * 4), from `forward` at this stage.
            image_sizes: (height, width) of each image.
            stage: whose encoding of boxes counts.

        Returns:
            (K, 4) of each image.
        """
        with torch.autocast(offsets.device.type, enabled=False):
            counts = [len(part) for part in boxes]
            own = torch.split(self.of_class(offsets, labels), counts)
            coder = self.stages[stage].coder
            return [
                coder.decode(part, moves, to_device(size, part.device))
                for part, moves, size in zip(boxes, own, image_sizes, strict=True)
            ]

    @torch.no_grad()
    def decode(
        self,
        boxes: Sequence[Tensor],
        logits: Tensor,
        offsets: Tensor,
        image_sizes: ImageSizes,
        stage: int = 0,
    ) -> list[ImageDetections]:
        """Boxes and what `forward` says of them to the detections of each image.

        Args:
            boxes: (K, 4) of each image.
            logits: (N, C + 1), background last.
            offsets: (N, 4) or (N, C * 4).
            image_sizes: (height, width) of each image.
            stage: whose encoding of boxes counts.
        """
        with torch.autocast(logits.device.type, enabled=False):
            counts = [len(part) for part in boxes]
            scores = torch.split(logits.softmax(dim=1)[:, :-1], counts)
            parts = zip(boxes, scores, torch.split(offsets, counts), image_sizes, strict=True)
            detections = []
            for part, part_scores, part_offsets, size in parts:
                limit = to_device(size, part.device)
                moved = self.stages[stage].coder.decode(part, part_offsets, limit)
                if moved.shape[1] > 4:
                    moved = moved.view(len(moved), self.num_classes, 4)  # (K, C, 4)
                detections.append(select_detections(moved, part_scores, None, self.limits))
            return detections

    def of_class(self, offsets: Tensor, labels: Tensor) -> Tensor:
        """Offsets (N, 4) of one class each, from (N, 4) or (N, C * 4)."""
        if offsets.shape[1] == 4:
            return offsets
        rows = torch.arange(len(offsets), device=offsets.device)
        return offsets.view(len(offsets), self.num_classes, 4)[rows, labels]


def _first_of_each(samples: Sequence[RoISample]) -> Tensor:
    """Indices, on the host, of the positives among the RoIs of all images: first in each image."""
    starts = starts_of([len(sample.boxes) for sample in samples])
    parts = [
        torch.arange(start, start + len(sample.own))
        for start, sample in zip(starts, samples, strict=True)
    ]
    return torch.cat(parts)
