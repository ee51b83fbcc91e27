"""Second stage of the two-stage detectors: what each proposal is, and where exactly, in one stage or in a cascade.

`assign` proposals to boxes, `loss`, `decode` to detections. A cascade (arXiv 1712.00726) feeds the
boxes of each stage to the next, which asks for a higher overlap; one stage is Fast R-CNN (arXiv
1504.08083).

Shapes: B images, N proposals or RoIs of all images, K proposals of one image, G boxes of one image,
C classes. Boxes are xyxy px. Class C is background.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from rfla.assign import MaxIoUAssigner, RandomSampler
from rfla.models.detector import Detections, ImageSizes, Losses, Target
from rfla.models.roi_align import RoIAlignPyramid
from rfla.ops.coding import DeltaCoder
from rfla.ops.losses import mean_over_ranks, smooth_l1
from rfla.ops.nms import Limits, select_detections


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
        """(N, D, S, S) to logits (N, C + 1), background last, and offsets (N, 4) or (N, C * 4), both float32."""
        features = pooled.flatten(1).to(
            self.fc_cls.weight.dtype
        )  # RoIs are pooled in float32 whatever the network is
        for layer in self.shared_fcs:
            features = functional.relu(layer(features))
        return self.fc_cls(features).float(), self.fc_reg(features).float()


@dataclass(frozen=True)
class Stage:
    """What differs between the stages of a cascade."""

    assigner: MaxIoUAssigner
    coder: DeltaCoder
    weight: float = 1.0


@dataclass(frozen=True)
class RoISample:
    """Sampled RoIs of one image, positives first: `boxes` (n, 4), `labels` (n,), `own` (p, 4) box of each positive.

    `is_truth` (n,) marks RoIs that are true boxes, added so that even a bad first stage leaves
    positives.
    """

    boxes: Tensor
    labels: Tensor
    own: Tensor
    is_truth: Tensor


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
        stages: Sequence[Stage],
        sampler: RandomSampler,
        limits: Limits,
        *,
        num_classes: int,
        beta: float = 0.0,
    ) -> None:
        super().__init__()
        self.pooler, self.bbox_head, self.stages = pooler, nn.ModuleList(bbox_head), tuple(stages)
        self.sampler, self.limits, self.num_classes, self.beta = sampler, limits, num_classes, beta

    def forward(
        self, pyramid: Sequence[Tensor], boxes: Sequence[Tensor], stage: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Logits (N, C + 1) and offsets of the boxes (K, 4) of each image, at one stage."""
        images = torch.cat(
            [part.new_full((len(part), 1), float(index)) for index, part in enumerate(boxes)]
        )
        rois = torch.cat([images, torch.cat(list(boxes))], dim=1)
        predicted: tuple[Tensor, Tensor] = self.bbox_head[stage](self.pooler(pyramid, rois))
        return predicted

    @torch.no_grad()
    def assign(self, proposals: Tensor, target: Target, stage: int, seed: int) -> RoISample:
        """Match and sample the RoIs of one image.

        Args:
            proposals: (K, 4).
            target: the truth; its boxes join the proposals.
            stage: whose overlap counts.
            seed: decides the random sample.
        """
        truth = target["boxes"].float()
        matched = self.stages[stage].assigner(proposals, truth, target.get("ignore"))
        matched = torch.cat([torch.arange(len(truth), device=matched.device), matched])
        sample = self.sampler(matched, seed)
        chosen = torch.cat([sample.positive, sample.negative])
        owner = matched[sample.positive]
        labels = matched.new_full((len(chosen),), self.num_classes)
        labels[: len(owner)] = target["labels"][owner]
        return RoISample(
            torch.cat([truth, proposals])[chosen], labels, truth[owner], chosen < len(truth)
        )

    def loss(
        self,
        pyramid: Sequence[Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[Target],
        image_sizes: ImageSizes,
        seeds: Sequence[int],
    ) -> Losses:
        """Compute `loss_cls` (cross entropy) and `loss_bbox`.

        Of a cascade `s0.loss_cls`, `s0.loss_bbox`, `s1.` ...

        Args:
            pyramid: feature maps.
            proposals: (K, 4) of each image.
            targets: B truths.
            image_sizes: (height, width) of each image; boxes between stages are clipped to it.
            seeds: what decides the random sample of each image.
        """
        losses: Losses = {}
        for index, stage in enumerate(self.stages):
            samples = [
                self.assign(boxes, target, index, seed)
                for boxes, target, seed in zip(proposals, targets, seeds, strict=True)
            ]
            logits, offsets = self(pyramid, [sample.boxes for sample in samples], index)
            with torch.autocast(logits.device.type, enabled=False):
                prefix = f"s{index}." if len(self.stages) > 1 else ""
                for name, value in self._stage_loss(stage, samples, logits, offsets).items():
                    losses[prefix + name] = value * stage.weight
                if index + 1 < len(self.stages):
                    proposals = self._refine(stage, samples, logits, offsets, image_sizes)
        return losses

    def _stage_loss(
        self, stage: Stage, samples: Sequence[RoISample], logits: Tensor, offsets: Tensor
    ) -> Losses:
        labels = torch.cat([sample.labels for sample in samples])
        count = mean_over_ranks(torch.tensor(float(max(len(labels), 1)), device=logits.device))
        loss_cls = functional.cross_entropy(logits, labels, reduction="sum") / count

        positive = (
            torch.cat([sample.labels < self.num_classes for sample in samples]).nonzero().squeeze(1)
        )
        boxes = torch.cat([sample.boxes for sample in samples])[positive]
        own_offsets = self._of_class(offsets[positive], labels[positive])
        truth = stage.coder.encode(boxes, torch.cat([sample.own for sample in samples]))
        return {
            "loss_cls": loss_cls,
            "loss_bbox": smooth_l1(own_offsets, truth, self.beta).sum() / count,
        }

    @torch.no_grad()
    def _refine(
        self,
        stage: Stage,
        samples: Sequence[RoISample],
        logits: Tensor,
        offsets: Tensor,
        image_sizes: ImageSizes,
    ) -> list[Tensor]:
        """Boxes of a stage as the proposals of the next, which adds the true boxes itself: here they are left out."""
        labels = torch.cat([sample.labels for sample in samples])
        labels = torch.where(labels == self.num_classes, logits[:, :-1].argmax(dim=1), labels)
        boxes = self._move(
            stage, [sample.boxes for sample in samples], labels, offsets, image_sizes
        )
        return [part[~sample.is_truth] for part, sample in zip(boxes, samples, strict=True)]

    @torch.no_grad()
    def decode(
        self, pyramid: Sequence[Tensor], proposals: Sequence[Tensor], image_sizes: ImageSizes
    ) -> list[Detections]:
        """Proposals (K, 4) of each image to its detections.

        Scores are those of the mean logits of all stages.
        """
        boxes = list(proposals)
        total = torch.zeros((), device=pyramid[0].device)
        for index, stage in enumerate(self.stages):
            logits, offsets = self(pyramid, boxes, index)
            total = total + logits
            if index + 1 < len(self.stages):
                boxes = self._move(stage, boxes, logits[:, :-1].argmax(dim=1), offsets, image_sizes)
        with torch.autocast(total.device.type, enabled=False):
            scores = (total / len(self.stages)).softmax(dim=1)[:, :-1]
            return self._select(self.stages[-1], boxes, scores, offsets, image_sizes)

    def _select(
        self,
        stage: Stage,
        boxes: Sequence[Tensor],
        scores: Tensor,
        offsets: Tensor,
        image_sizes: ImageSizes,
    ) -> list[Detections]:
        counts = [len(part) for part in boxes]
        detections = []
        for part, part_scores, part_offsets, size in zip(
            boxes,
            torch.split(scores, counts),
            torch.split(offsets, counts),
            image_sizes,
            strict=True,
        ):
            moved = stage.coder.decode(part, part_offsets, torch.tensor(size, device=part.device))
            if moved.shape[1] > 4:
                moved = moved.view(len(moved), self.num_classes, 4)  # (K, C, 4)
            detections.append(select_detections(moved, part_scores, None, self.limits))
        return detections

    def _move(
        self,
        stage: Stage,
        boxes: Sequence[Tensor],
        labels: Tensor,
        offsets: Tensor,
        image_sizes: ImageSizes,
    ) -> list[Tensor]:
        """Move the boxes (K, 4) of each image by the offsets of their classes, and clip them to their image."""
        counts = [len(part) for part in boxes]
        own = torch.split(self._of_class(offsets, labels), counts)
        return [
            stage.coder.decode(part, moves, torch.tensor(size, device=part.device))
            for part, moves, size in zip(boxes, own, image_sizes, strict=True)
        ]

    def _of_class(self, offsets: Tensor, labels: Tensor) -> Tensor:
        """Offsets (N, 4) of one class each, from (N, 4) or (N, C * 4)."""
        if offsets.shape[1] == 4:
            return offsets
        return offsets.view(len(offsets), self.num_classes, 4)[
            torch.arange(len(offsets), device=offsets.device), labels
        ]
